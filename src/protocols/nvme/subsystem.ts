/** An NVM subsystem: a name, the namespaces under it, and who may use them. */
import type { Authenticator } from "./authenticator.js";
import { NAMESPACES } from "./limits.js";
import type { Namespace } from "./namespace.js";

/** What one host may do, keyed by its NQN in {@link SubsystemOptions.hosts}. */
export interface HostAccess {
  /** Makes the check that every queue of this host must pass. Left out: none. */
  readonly authenticate?: (exchange: AuthenticationContext) => Authenticator;
  /** The host must come over TLS, with the key of its own name. */
  readonly requireTls?: boolean;
}

/** Whom an authentication is about. */
export interface AuthenticationContext {
  readonly hostNqn: string;
  readonly subsystemNqn: string;
}

export interface SubsystemOptions {
  /** Its NQN: 1 to 223 bytes, as in `nqn.2026-01.example:disk`. */
  readonly nqn: string;
  /** Up to 20 ASCII characters. */
  readonly serial: string;
  /** Up to 40 ASCII characters. */
  readonly model?: string;
  /** Up to 8 ASCII characters. */
  readonly firmware?: string;
  /** Hosts by NQN; `"any"` lets everyone in who can connect. */
  readonly hosts: ReadonlyMap<string, HostAccess> | "any";
  /** Several hosts may be connected at one time. Default false: an image has a single writer. */
  readonly shared?: boolean;
  /** Hosts may see this subsystem through several controllers as one (CMIC, NMIC). Default false. */
  readonly multipath?: boolean;
}
