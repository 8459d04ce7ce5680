import { alignedBuffer } from "../../host/direct-io.js";

/**
 * A fixed number of buffers of one size: what bounds the memory of a copy, and how many requests are in flight. The memory is
 * page-aligned, so that it serves transfers that bypass the page cache, too.
 */
export class BufferPool {
  readonly #free: Uint8Array[] = [];
  readonly #waiting: ((buffer: Uint8Array) => void)[] = [];
  readonly #count: number;
  /** Those who wait until nobody holds a buffer. */
  readonly #everythingBack: (() => void)[] = [];

  /** `shared`: other threads can see them. */
  constructor(count: number, size: number, shared = false) {
    const memory = alignedBuffer(count * size, shared);
    for (let index = 0; index < count; index++) this.#free.push(memory.subarray(index * size, (index + 1) * size));
    this.#count = count;
  }

  /** A buffer at once, or undefined when all are in use. */
  takeNow(): Uint8Array | undefined {
    return this.#free.pop();
  }

  /** A buffer, when one is free. */
  take(): Promise<Uint8Array> {
    const buffer = this.#free.pop();
    if (buffer !== undefined) return Promise.resolve(buffer);
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  give(buffer: Uint8Array): void {
    const next = this.#waiting.shift();
    if (next !== undefined) {
      next(buffer);
      return;
    }
    this.#free.push(buffer);
    if (this.#free.length < this.#count) return;
    for (const tell of this.#everythingBack.splice(0)) tell();
  }

  /** Resolves when nobody holds a buffer. */
  allBack(): Promise<void> {
    if (this.#free.length === this.#count) return Promise.resolve();
    return new Promise((resolve) => this.#everythingBack.push(resolve));
  }
}
