/**
 * Memory for data with zeros around it. One piece of it is used again and again: fresh memory for every write keeps the garbage
 * collector busy for longer than the write takes.
 */
export class Padding {
  #free: Uint8Array | undefined;

  /** `length` bytes: `data` at `at`, zeros elsewhere. */
  around(data: Uint8Array, at: number, length: number): Uint8Array {
    const free = this.#free;
    this.#free = undefined;
    const bytes = free !== undefined && free.length >= length ? free.subarray(0, length) : new Uint8Array(length);
    bytes.fill(0, 0, at);
    bytes.set(data, at);
    bytes.fill(0, at + data.length);
    return bytes;
  }

  /** Nothing uses `bytes` any more. What is not given back is left to the garbage collector. */
  giveBack(bytes: Uint8Array): void {
    this.#free = new Uint8Array(bytes.buffer);
  }
}
