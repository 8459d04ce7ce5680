import { ZcowError } from "../base/errors.js";
import type { Storage, StorageCapabilities, StorageExtent } from "./storage.js";
import { closedError, rangeError, readOnlyError } from "./storage-error.js";

/** How a null storage differs from the plain one. */
export interface NullStorageOptions {
  /** How messages call it. Default "null". */
  readonly name?: string;
  /** Whether its length can change. Default true. */
  readonly resizable?: boolean;
  /** Whether it can be written. Default true. */
  readonly writable?: boolean;
  /** Byte that reads give. Default 0. */
  readonly fill?: number;
  /** Milliseconds that each read, write and flush takes. Default 0. */
  readonly latency?: number;
}

/** Reads zeros, forgets writes. It measures what everything above the storage costs. */
class ForgettingStorage implements Storage {
  readonly name: string;
  readonly capabilities: StorageCapabilities;
  readonly #fill: number;
  readonly #latency: number;
  #size: number;
  #closed = false;

  constructor(size: number, options: NullStorageOptions) {
    const { name = "null", resizable = true, writable = true, fill = 0, latency = 0 } = options;
    this.name = name;
    this.capabilities = Object.freeze({
      writable,
      resizable,
      discard: true,
      efficientZeroes: true,
      holes: fill === 0,
      synchronous: latency === 0,
      alignment: 1,
      durable: false,
    });
    this.#fill = fill;
    this.#latency = latency;
    this.#size = size;
  }

  size(): number {
    return this.#size;
  }

  read(at: number, into: Uint8Array): Promise<void> | undefined {
    const refusal = this.#refuse(at, into.length);
    if (refusal !== undefined) return refusal;
    // What lies past the end is zeros, whatever lies before it.
    const inside = Math.max(0, Math.min(into.length, this.#size - at));
    into.fill(this.#fill, 0, inside).fill(0, inside);
    return this.#delay();
  }

  write(at: number, from: Uint8Array): Promise<void> | undefined {
    return this.writeZeroes(at, from.length);
  }

  writeZeroes(at: number, length: number): Promise<void> | undefined {
    const refusal = this.#refuseChange(at, length, at + length <= this.#size);
    if (refusal !== undefined) return refusal;
    if (length > 0) this.#size = Math.max(this.#size, at + length);
    return this.#delay();
  }

  discard(at: number, length: number): Promise<void> | undefined {
    return this.#refuse(at, length);
  }

  flush(): Promise<void> | undefined {
    return this.#refuse(0, 0) ?? this.#delay();
  }

  truncate(size: number): Promise<void> | undefined {
    const refusal = this.#refuseChange(size, 0, size === this.#size);
    if (refusal === undefined) this.#size = size;
    return refusal;
  }

  async *extents(at: number, length: number): AsyncGenerator<StorageExtent> {
    const refusal = this.#refuse(at, length);
    if (refusal !== undefined) await refusal;
    if (length > 0) yield { offset: at, length, hole: this.#fill === 0 };
  }

  allocatedSize(): number {
    return 0;
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  /** `fits`: the length of the storage allows the change. */
  #refuseChange(at: number, length: number, fits: boolean): Promise<void> | undefined {
    if (!this.capabilities.writable) return Promise.reject(readOnlyError(this.name));
    if (fits || this.capabilities.resizable) return this.#refuse(at, length);
    return Promise.reject(
      new ZcowError("STORAGE_UNSUPPORTED", `${this.name} has ${this.#size} bytes, which cannot be changed`, {
        data: { path: this.name, offset: at, length, limit: this.#size },
        stockText: "Image format driver does not support resize",
      }),
    );
  }

  #delay(): Promise<void> | undefined {
    if (this.#latency === 0) return undefined;
    return new Promise((resolve) => {
      setTimeout(resolve, this.#latency);
    });
  }

  #refuse(at: number, length: number): Promise<void> | undefined {
    if (this.#closed) return Promise.reject(closedError(this.name));
    const error = rangeError(this.name, at, length);
    return error === undefined ? undefined : Promise.reject(error);
  }
}

/** A storage of `size` bytes that reads as zeros and forgets every write, for measurements. */
export function nullStorage(size: number, options: NullStorageOptions = {}): Storage {
  return new ForgettingStorage(size, options);
}
