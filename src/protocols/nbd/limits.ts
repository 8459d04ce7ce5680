/** Every bound on what a client can make the server hold, with its reason. Each is checked before memory is taken. */
import { KiB, MiB } from "../../base/units.js";

/** Bounds that a server may choose. */
export interface NbdLimits {
  /** Milliseconds from the start of a connection to the choice of an export, TLS included. 0: no bound. */
  readonly handshakeMilliseconds: number;
  /** Requests of one connection that wait for the disk. Above it, no further request is read. */
  readonly requestsInFlight: number;
  /** Bytes of one connection that wait for the disk. Above it, no further request is read. One piece of a request may come on top. */
  readonly bytesInFlight: number;
  /**
   * Bytes of replies that one connection has not taken, beyond what the kernel keeps for it. Above it, no further request is
   * read: what waits long leaves the processor's cache. One piece of a request may come on top.
   */
  readonly backlogBytes: number;
}

export const DEFAULT_NBD_LIMITS: NbdLimits = {
  handshakeMilliseconds: 10_000,
  requestsInFlight: 256,
  bytesInFlight: 4 * MiB,
  backlogBytes: MiB,
};

/** Bytes of the largest read or write: what other servers allow, too. Larger ones end the connection or are refused. */
export const REQUEST_BYTES = 32 * MiB;
/** Larger requests are worked on in pieces of this many bytes, so that none makes the server hold more. */
export const PIECE_BYTES = MiB;
/** Bytes of a chunk of a reply that may come in several: what is read is sent while it is in the processor's cache. */
export const PART_BYTES = 256 * KiB;
/** Bytes of the data of an option: a few hundred queries, or the longest name. */
export const OPTION_BYTES = 64 * KiB;
/** Bytes of an option's data that are passed over before it is refused as too big. Above it the connection ends. */
export const SKIPPED_OPTION_BYTES = 32 * MiB;
/** Options of one handshake; nobody needs more than a dozen and one for each export listed. */
export const HANDSHAKE_OPTIONS = 4096;
/** Metadata contexts chosen for one connection. */
export const CHOSEN_CONTEXTS = 64;
/** Extents of one context in a reply to a query of block status; the client asks again for the rest. */
export const STATUS_EXTENTS = 16 * 1024;
/** Bytes that a transport may still deliver after it was told to pause: what one read of a socket holds, and then some. */
export const DEFERRED_BYTES = MiB;
/** Milliseconds that a client may take to close a connection that we ended. */
export const FAREWELL_MILLISECONDS = 5_000;
