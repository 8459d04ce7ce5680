import { BufferAddresses } from "./buffer-addresses.js";
import { ERRNO, type NativeCalls, nativeCalls, systemError } from "./native.js";

/** `recv(2)`, `send(2)`: return instead of waiting; no signal when the peer is gone; more follows at once. */
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_MORE = 0x8000;

const TWO_32 = 0x1_0000_0000;
/** Bytes of a `struct iovec`. */
const IOVEC = 16;

/** Nothing has come. */
export const NOTHING_YET = -1;
/** The peer will send nothing more. */
export const PEER_ENDED = 0;

/**
 * System calls on a socket that Node.js watches, from which it is not to be taken away: nothing here waits. Such a call costs a
 * fraction of what the event loop and its streams take for the same.
 */
export class SocketCalls {
  readonly #calls: NativeCalls;
  readonly #addresses: BufferAddresses;
  // An explicit ArrayBuffer: V8 keeps small typed arrays inside objects that its collector moves.
  readonly #words = new Uint32Array(new ArrayBuffer(2 * IOVEC));
  readonly #iovec = new Uint8Array(this.#words.buffer);

  private constructor(calls: NativeCalls) {
    this.#calls = calls;
    this.#addresses = new BufferAddresses(calls);
  }

  /** Undefined without the native helper. */
  static load(): SocketCalls | undefined {
    const calls = nativeCalls();
    return calls && new SocketCalls(calls);
  }

  /** Bytes that have come and are in `into` now, {@link NOTHING_YET} or {@link PEER_ENDED}. Fails as the system says. */
  receive(fd: number, into: Uint8Array): number {
    const count = this.#calls.recv(fd, into, into.length, MSG_DONTWAIT);
    return count >= 0 ? count : this.#nothing("recv");
  }

  /** As {@link receive}, into two buffers that are not empty, one after the other. The socket must not be a blocking one. */
  receiveInto(fd: number, first: Uint8Array, second: Uint8Array): number {
    this.#describe(0, first);
    this.#describe(IOVEC / 4, second);
    const count = this.#calls.readv(fd, this.#iovec, 2);
    return count >= 0 ? count : this.#nothing("readv");
  }

  /** How many of the bytes the kernel has taken: all, or some, or none. `more`: further ones are sent right after them. */
  send(fd: number, bytes: Uint8Array, more: boolean): number {
    const count = this.#calls.send(fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0));
    // Whatever is wrong, whoever sends the rest will hear of it.
    return Math.max(0, count);
  }

  /** Lets others run who wait for this processor, and returns at once when there are none. */
  yieldProcessor(): void {
    this.#calls.schedYield();
  }

  #describe(at: number, view: Uint8Array): void {
    const address = this.#addresses.of(view);
    const words = this.#words;
    words[at] = address % TWO_32;
    words[at + 1] = address / TWO_32;
    words[at + 2] = view.length;
    words[at + 3] = 0;
  }

  #nothing(call: string): number {
    const errno = this.#calls.errno();
    if (errno === ERRNO.EAGAIN || errno === ERRNO.EINTR) return NOTHING_YET;
    throw systemError(errno, call);
  }
}
