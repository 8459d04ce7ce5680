import { ERRNO, type NativeCalls } from "./native.js";

/** `preadv2(2)`: return at once what is in memory, do not wait for the disk. */
const RWF_NOWAIT = 8;

const TWO_32 = 0x1_0000_0000;

/** The read found nothing in the page cache. */
export const NOT_CACHED = -1;
/** This file system (tmpfs, for one) or kernel cannot tell; never ask again for this file. */
export const CANNOT_TELL = -2;

/**
 * Reads from the page cache only, so a call never waits for a disk.
 *
 * `preadv2` takes the address of the buffer inside a structure. Asking koffi for the address on every
 * call is most of its cost, so the base address of the last buffer is kept: callers read again
 * and again into few buffers. A kept address cannot go stale, because the buffer is kept with it and a
 * detached buffer only has empty views, which are answered before the address is used.
 */
export class PageCacheReader {
  readonly #calls: NativeCalls;
  // An explicit ArrayBuffer: V8 keeps small typed arrays inside objects that its collector moves.
  readonly #words = new Uint32Array(new ArrayBuffer(16));
  readonly #iovec = new Uint8Array(this.#words.buffer);
  #buffer: ArrayBufferLike | undefined;
  #base = 0;

  constructor(calls: NativeCalls) {
    this.#calls = calls;
  }

  /** Bytes read (0 = end of file, less than asked = the rest is not cached), {@link NOT_CACHED} or {@link CANNOT_TELL}. */
  read(fd: number, at: number, into: Uint8Array): number {
    if (into.length === 0) return 0;
    if (into.buffer !== this.#buffer) {
      this.#base = this.#calls.address(into) - into.byteOffset;
      this.#buffer = into.buffer;
    }
    const address = this.#base + into.byteOffset;
    const words = this.#words;
    words[0] = address % TWO_32;
    words[1] = address / TWO_32;
    words[2] = into.length % TWO_32;
    words[3] = into.length / TWO_32;
    const count = this.#calls.preadv2(fd, this.#iovec, 1, at, RWF_NOWAIT);
    if (count >= 0) return count;
    const errno = this.#calls.errno();
    return errno === ERRNO.EOPNOTSUPP || errno === ERRNO.ENOSYS || errno === ERRNO.EINVAL ? CANNOT_TELL : NOT_CACHED;
  }
}
