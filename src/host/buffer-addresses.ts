import type { NativeCalls } from "./native.js";

const TWO_32 = 0x1_0000_0000;

/**
 * Where buffers lie in memory. Asking the native helper costs as much as handing a read to the kernel, so what it said about a
 * buffer is kept as long as the buffer: it does not move, and once detached it only has empty views.
 */
export class BufferAddresses {
  readonly #calls: NativeCalls;
  readonly #bases = new WeakMap<ArrayBufferLike, number>();

  constructor(calls: NativeCalls) {
    this.#calls = calls;
  }

  /** Address of the first byte of `view`, which is not empty. */
  of(view: Uint8Array): number {
    // Asked first: a small array gets memory that stays where it is only with its buffer.
    const { buffer } = view;
    let base = this.#bases.get(buffer);
    if (base === undefined) {
      base = this.#calls.address(view) - view.byteOffset;
      this.#bases.set(buffer, base);
    }
    return base + view.byteOffset;
  }

  /** The largest power of two that the address of `view` is a multiple of, up to 2^32. */
  alignmentOf(view: Uint8Array): number {
    const low = this.of(view) % TWO_32;
    return low === 0 ? TWO_32 : (low & -low) >>> 0;
  }
}
