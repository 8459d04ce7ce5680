import type { Storage, StorageCapabilities, StorageExtent } from "./storage.js";
import { closedError, rangeError } from "./storage-error.js";

/** Reads zeros, forgets writes. It measures what everything above the storage costs. */
class ForgettingStorage implements Storage {
  readonly name = "null";
  readonly capabilities: StorageCapabilities = Object.freeze({
    writable: true,
    resizable: true,
    discard: true,
    efficientZeroes: true,
    holes: true,
    synchronous: true,
    alignment: 1,
    durable: false,
  });
  #size: number;
  #closed = false;

  constructor(size: number) {
    this.#size = size;
  }

  size(): number {
    return this.#size;
  }

  read(at: number, into: Uint8Array): Promise<void> | undefined {
    const refusal = this.#refuse(at, into.length);
    if (refusal === undefined) into.fill(0);
    return refusal;
  }

  write(at: number, from: Uint8Array): Promise<void> | undefined {
    return this.writeZeroes(at, from.length);
  }

  writeZeroes(at: number, length: number): Promise<void> | undefined {
    const refusal = this.#refuse(at, length);
    if (refusal === undefined && length > 0) this.#size = Math.max(this.#size, at + length);
    return refusal;
  }

  discard(at: number, length: number): Promise<void> | undefined {
    return this.#refuse(at, length);
  }

  flush(): Promise<void> | undefined {
    return this.#refuse(0, 0);
  }

  truncate(size: number): Promise<void> | undefined {
    const refusal = this.#refuse(size, 0);
    if (refusal === undefined) this.#size = size;
    return refusal;
  }

  async *extents(at: number, length: number): AsyncGenerator<StorageExtent> {
    const refusal = this.#refuse(at, length);
    if (refusal !== undefined) await refusal;
    if (length > 0) yield { offset: at, length, hole: true };
  }

  allocatedSize(): number {
    return 0;
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  #refuse(at: number, length: number): Promise<void> | undefined {
    if (this.#closed) return Promise.reject(closedError(this.name));
    const error = rangeError(this.name, at, length);
    return error === undefined ? undefined : Promise.reject(error);
  }
}

/** A storage of `size` bytes that reads as zeros and forgets every write, for measurements. */
export function nullStorage(size: number): Storage {
  return new ForgettingStorage(size);
}
