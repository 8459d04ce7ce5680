/** Bounds on connections before the protocol knows them. */
export interface NbdServerLimits {
  /** Clients that are served at one time; further ones wait until one leaves. 0: as many as there are connections. */
  readonly clients: number;
  /** Connections at one time, those that wait included. Further ones are dropped. */
  readonly connections: number;
  /** Milliseconds for the TLS handshake. */
  readonly tlsHandshakeMilliseconds: number;
}

export const DEFAULT_NBD_SERVER_LIMITS: NbdServerLimits = {
  clients: 0,
  connections: 512,
  tlsHandshakeMilliseconds: 5_000,
};
