import type { Socket } from "node:net";
import { createSecureContext, type SecureContext, type SecureContextOptions, type TLSSocket } from "node:tls";
import { acceptTls, type ServerHandshake } from "../tls-handshake.js";
import type { TlsKey } from "./security/tls-key.js";
import { type KeyDerivation, TLS_CIPHERS, type TlsPeer, tlsPeer } from "./security/tls-psk.js";

/** The TLS keys of a port: one for all hosts, or some of their own. */
export interface TlsKeys {
  /** The key of a host; `undefined` when it has none. */
  readonly keyOf: (hostNqn: string) => TlsKey | undefined;
  /** For identities of version 0; see {@link KeyDerivation}. Default `standard`. */
  readonly derivation?: KeyDerivation;
}

export type TlsAccepted = (socket: TLSSocket, peer: TlsPeer) => void;
export type TlsRefused = (reason: string) => void;

/** What Node's secure contexts have beside what is documented. */
interface TicketHooks {
  enableTicketKeyCallback?: () => void;
  onticketkeycallback?: (name: Uint8Array, iv: Uint8Array, encrypting: boolean) => unknown[];
}

const TLS_OPTIONS: SecureContextOptions = { minVersion: "TLSv1.3", maxVersion: "TLSv1.3", ciphers: TLS_CIPHERS };
/** Bytes of the parts of a ticket key. */
const TICKET_KEY_PART = 16;

/** Does the server side of TLS handshakes with keys agreed on beforehand. */
export class TlsAcceptor {
  /** False when this version of Node sends session tickets whatever we do: Linux then ends the connection. */
  readonly ticketsSuppressed: boolean;
  readonly #keys: TlsKeys;
  readonly #context: SecureContext;
  readonly #handshakeMilliseconds: number;

  constructor(keys: TlsKeys, handshakeMilliseconds: number) {
    this.#keys = keys;
    this.#handshakeMilliseconds = handshakeMilliseconds;
    this.#context = createSecureContext(TLS_OPTIONS);
    this.ticketsSuppressed = suppressTickets(this.#context);
  }

  /** Exactly one of `accepted` and `refused` is called, once. */
  accept(socket: Socket, accepted: TlsAccepted, refused: TlsRefused): void {
    let peer: TlsPeer | undefined;
    const handshake: ServerHandshake = {
      context: this.#context,
      milliseconds: this.#handshakeMilliseconds,
      pskOf: (identity) => {
        peer = this.#peer(identity);
        return peer?.psk;
      },
      // Without an identity the session would rest on something other than a key, which nothing here offers.
      verdict: () => (peer === undefined ? "the TLS session names no identity" : undefined),
      explain: (error) => (peer === undefined ? "no key for this TLS identity" : error.message),
    };
    acceptTls(socket, handshake, (secure) => accepted(secure, peer as TlsPeer), refused);
  }

  #peer(identity: string): TlsPeer | undefined {
    const hostNqn = identity.split(" ")[1] ?? "";
    const key = this.#keys.keyOf(hostNqn);
    return key === undefined ? undefined : tlsPeer(key, identity, this.#keys.derivation ?? "standard");
  }
}

/**
 * Linux takes over a TLS connection right after the handshake and ends it when anything but data follows, such as a
 * session ticket. Node has no option for the number of tickets; a ticket key that is refused has the same effect.
 */
function suppressTickets(context: SecureContext): boolean {
  const hooks = context.context as TicketHooks;
  if (typeof hooks.enableTicketKeyCallback !== "function") return false;
  const part = new Uint8Array(TICKET_KEY_PART);
  const NO_TICKET = 0;
  hooks.onticketkeycallback = () => [
    NO_TICKET,
    Buffer.from(part),
    Buffer.from(part),
    Buffer.from(part),
    Buffer.from(part),
  ];
  hooks.enableTicketKeyCallback();
  return true;
}
