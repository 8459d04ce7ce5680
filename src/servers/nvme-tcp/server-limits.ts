/** Bounds on what peers can make the server hold before the protocol knows them. Each is checked on arrival. */
export interface ServerLimits {
  /** Connections at one time. Each has a socket and its buffers. */
  readonly connections: number;
  /** Connections of one address: a host has one per queue, and some more while it reconnects. */
  readonly connectionsPerAddress: number;
  /** Milliseconds for the TLS handshake. */
  readonly tlsHandshakeMilliseconds: number;
}

export const DEFAULT_SERVER_LIMITS: ServerLimits = {
  connections: 512,
  connectionsPerAddress: 256,
  tlsHandshakeMilliseconds: 5_000,
};
