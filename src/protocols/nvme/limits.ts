/** Every bound on what a peer can make the target hold, with its reason. */
import { KiB, MiB } from "../../base/units.js";

/** Bounds that a server may choose. All are checked before anything is allocated. */
export interface TargetLimits {
  /** I/O queues per controller, each a connection. Linux asks for one per processor. */
  readonly ioQueues: number;
  /** Entries of the largest I/O queue. Linux asks for 128 unless told otherwise. CAP.MQES is this less one. */
  readonly queueEntries: number;
  /** Controllers at one time, over all subsystems: each has an admin queue and its events. */
  readonly controllers: number;
  /**
   * Bytes of in-capsule data that a command of an I/O queue may carry: 0, or a multiple of 16. Small writes save the
   * round trip of an R2T; each connection may hold one such capsule that has arrived in part.
   */
  readonly inCapsuleBytes: number;
  /** MAXH2CDATA: bytes of the largest H2CData PDU. Linux demands a multiple of 4 and at least 4096. */
  readonly h2cDataBytes: number;
  /** Bytes of the largest read or write (MDTS): 4 KiB times a power of two. Bounds every buffer there is. */
  readonly transferBytes: number;
  /** Bytes of the largest zone append (ZASL): 4 KiB times a power of two, at most `transferBytes`. */
  readonly appendBytes: number;
  /**
   * Bytes of write data per connection that are asked for and not yet written. Further commands wait for their R2T,
   * in order. At least `transferBytes`, so that one command always fits.
   */
  readonly writeBytesInFlight: number;
  /**
   * Bytes of replies that may wait for the peer to read them. Above it, no further command of the connection is
   * started, and the transport is asked to stop reading.
   */
  readonly backlogBytes: number;
  /** Milliseconds from the start of a connection to its accepted Connect command, authentication included. */
  readonly handshakeMilliseconds: number;
}

export const DEFAULT_LIMITS: TargetLimits = {
  ioQueues: 16,
  queueEntries: 128,
  controllers: 64,
  inCapsuleBytes: 8 * KiB,
  h2cDataBytes: 128 * KiB,
  transferBytes: MiB,
  appendBytes: 128 * KiB,
  writeBytesInFlight: 8 * MiB,
  backlogBytes: 4 * MiB,
  handshakeMilliseconds: 10_000,
};

/** In-capsule data of admin and Fabrics commands: the transport specification fixes 8192 bytes (NVMe/TCP, "In-Capsule Data"). */
export const ADMIN_IN_CAPSULE_BYTES = 8192;
/** Entries of an admin queue: Linux asks for 32; the specification allows 4096, which nobody needs. */
export const ADMIN_QUEUE_ENTRIES = 128;
/** Asynchronous Event Requests that may wait on a controller (AERL + 1). Linux posts one. */
export const EVENT_REQUESTS = 4;
/** Events kept for a host that has posted no request. One of each kind is enough: a host reads the log to learn the rest. */
export const EVENTS_KEPT = 16;
/** Subsystems of a target: a discovery log lists each once per port, 1 KiB per record. */
export const SUBSYSTEMS = 1024;
/** Namespaces of a subsystem: what one CNS 02 list holds. */
export const NAMESPACES = 1024;
/** Entries of the error log, the newest kept (ELPE + 1). */
export const ERROR_LOG_ENTRIES = 64;
/** Largest log page or identify answer, bytes: larger reads are answered in pieces by offset anyway. */
export const ADMIN_TRANSFER_BYTES = MiB;
/** Zone starts that a changed-zone list holds; more are reported as "too many" (ZNS, Changed Zone List). */
export const CHANGED_ZONES = 511;
/** Source ranges of a Copy command (MSRC + 1). */
export const COPY_RANGES = 128;
/** Commands in flight before Connect: Connect itself and an Authentication command behind it. */
export const UNCONNECTED_COMMANDS = 2;
/** Bytes that a transport may still deliver after it was told to pause: what one read of a socket holds, and then some. */
export const DEFERRED_BYTES = MiB;
/** Milliseconds that a host may take to close a connection that we ended. */
export const TERMINATION_MILLISECONDS = 5000;
/** Milliseconds to which keep-alive timeouts are rounded up (KAS is this in units of 100 ms). */
export const KEEP_ALIVE_GRANULARITY = 1000;
/** Bytes of an authentication message from the host: a reply with an 8192-bit DH value takes about 1200. */
export const AUTHENTICATION_MESSAGE_BYTES = 4096;
