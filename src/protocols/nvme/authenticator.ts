/** The seam to in-band authentication: what Authentication Send and Receive carry for one queue. */
import type { MaybePromise } from "../../base/maybe-promise.js";

/** How an authentication stands. A failed one ends the connection once the host has read why. */
export type AuthenticationState = "pending" | "authenticated" | "failed";

/** One side of one authentication transaction (NVMe base specification, "Authentication"). The other side is the host. */
export interface Authenticator {
  readonly state: AuthenticationState;
  /** The host's next message. A message that breaks the protocol makes the state `failed`; nothing is thrown. */
  receive(message: Uint8Array): MaybePromise<void>;
  /** The next message for the host; `undefined` when there is none, which is the host's mistake. */
  next(): Uint8Array | undefined;
}
