/**
 * What the protocol needs from the outside: a byte stream in both directions, and time. The protocol opens no
 * socket and reads no clock, so it runs the same over TCP, over TLS and over a pipe between two objects of a test.
 */

/**
 * One connection's way out. The bytes that come in are given to `Connection.receive`.
 *
 * No method may call back into the connection before it returns.
 */
export interface Transport {
  /** Queues `bytes` behind what was sent before. The transport owns them from now on: they never change again. */
  send(bytes: Uint8Array): void;
  /**
   * Gives back memory that came from the target's `allocate`: none of it will be sent any more, or looked at. It may be
   * used again once what was sent of it has left.
   */
  release?(block: Uint8Array): void;
  /** Bytes given to `send` that have not been handed to the network yet. */
  readonly backlog: number;
  /**
   * Asks that `Connection.receive` is called no more until `resume`: the peer does not read what it asked for. Bytes
   * that are under way already may still be delivered; they are kept, and count as what the peer may occupy.
   */
  pause(): void;
  /** Takes `pause` back. */
  resume(): void;
  /** Closes the stream after everything sent has left. */
  end(): void;
  /** Drops the stream at once, with everything not yet sent. */
  destroy(reason: Error): void;
}

/** What a transport tells its connection. `Connection` implements it. */
export interface TransportListener {
  /** `chunk` is valid during the call only: it is parsed in place, and what must stay is copied. Never throws. */
  receive(chunk: Uint8Array): void;
  /** The backlog has fallen below the transport's low mark (or is empty). To be called whenever that happens. */
  drained(): void;
  /** The stream has ended, by whichever side, and nothing more can be sent. Idempotent. */
  disconnected(reason?: Error): void;
}

/** Who is at the other end, as far as the transport knows. */
export interface PeerInfo {
  /** For logs, as in `192.0.2.7:51234`. */
  readonly address: string;
  /**
   * Where the peer reached this target: what discovery records tell it to connect to when the port listens on all
   * addresses. Left out: the addresses that the port was configured with.
   */
  readonly localAddress?: string;
  /** The stream is encrypted and the peer proved that it holds the key of this pair of names. */
  readonly tls?: { readonly hostNqn: string; readonly subsystemNqn: string };
}

/** Time, so that tests can let it pass. */
export interface Clock {
  /** Milliseconds since any fixed moment; never goes back. */
  now(): number;
  /** Calls `callback` once after `delay` milliseconds; the result cancels it. Must not keep the process alive. */
  after(delay: number, callback: () => void): () => void;
}
