import { ZcowError } from "../base/errors.js";
import { alignDown } from "../base/integers.js";
import { KiB, MiB } from "../base/units.js";
import { mergeExtents } from "./extent-runs.js";
import type { Storage, StorageCapabilities, StorageExtent } from "./storage.js";
import { closedError, rangeError, readOnlyError } from "./storage-error.js";

/** Bytes per chunk. Chunks that were never written, or were zeroed whole, take no memory. */
const CHUNK_SIZE = 64 * KiB;

/** Largest snapshot that `bytes()` makes; a sparse storage may be much longer than the memory of the host. */
const SNAPSHOT_LIMIT = 1024 * MiB;

/** How a memory storage presents itself. */
export interface MemoryStorageOptions {
  /** How messages call the storage. Default "memory". */
  readonly name?: string;
  /** Default true. */
  readonly writable?: boolean;
}

/** A storage in memory that shows its bytes. */
export interface MemoryStorage extends Storage {
  /** A copy of all bytes. Refused with `OUT_OF_RANGE` above 1 GiB. */
  bytes(): Uint8Array;
  /** A writable storage with the same bytes. Costs time by chunks held; memory only as either side changes. */
  clone(): MemoryStorage;
}

class ChunkedMemoryStorage implements MemoryStorage {
  readonly name: string;
  readonly capabilities: StorageCapabilities;
  readonly #chunks = new Map<number, Uint8Array>();
  /** Offsets of chunks that a clone holds too: to be copied before they are changed. */
  #shared = new Set<number>();
  #size = 0;
  #closed = false;

  constructor(options: MemoryStorageOptions) {
    this.name = options.name ?? "memory";
    const writable = options.writable ?? true;
    this.capabilities = Object.freeze({
      writable,
      resizable: writable,
      discard: writable,
      efficientZeroes: true,
      holes: true,
      synchronous: true,
      alignment: 1,
      durable: false,
    });
  }

  /** Sets the first content, whatever `writable` says. */
  fill(initial: Uint8Array | number): this {
    if (typeof initial === "number") {
      this.#size = initial;
    } else {
      this.#put(0, initial);
    }
    return this;
  }

  size(): number {
    return this.#size;
  }

  read(at: number, into: Uint8Array): Promise<void> | undefined {
    const refusal = this.#refuse(at, into.length);
    if (refusal !== undefined) return refusal;
    let done = 0;
    while (done < into.length) {
      const position = at + done;
      const base = alignDown(position, CHUNK_SIZE);
      const skip = position - base;
      const count = Math.min(CHUNK_SIZE - skip, into.length - done);
      const chunk = this.#chunks.get(base);
      if (chunk === undefined) {
        into.fill(0, done, done + count);
      } else {
        into.set(chunk.subarray(skip, skip + count), done);
      }
      done += count;
    }
    return undefined;
  }

  write(at: number, from: Uint8Array): Promise<void> | undefined {
    const refusal = this.#refuse(at, from.length) ?? this.#refuseChange();
    if (refusal !== undefined) return refusal;
    this.#put(at, from);
    return undefined;
  }

  writeZeroes(at: number, length: number): Promise<void> | undefined {
    const refusal = this.#refuse(at, length) ?? this.#refuseChange();
    if (refusal !== undefined) return refusal;
    this.#clear(at, length);
    if (length > 0) this.#size = Math.max(this.#size, at + length);
    return undefined;
  }

  discard(at: number, length: number): Promise<void> | undefined {
    const refusal = this.#refuse(at, length) ?? this.#refuseChange();
    if (refusal !== undefined) return refusal;
    this.#clear(at, length);
    return undefined;
  }

  flush(): Promise<void> | undefined {
    return this.#refuse(0, 0);
  }

  truncate(size: number): Promise<void> | undefined {
    const refusal = this.#refuse(size, 0) ?? this.#refuseChange();
    if (refusal !== undefined) return refusal;
    if (size < this.#size) this.#clear(size, this.#size - size);
    this.#size = size;
    return undefined;
  }

  async *extents(at: number, length: number): AsyncGenerator<StorageExtent> {
    const refusal = this.#refuse(at, length);
    if (refusal !== undefined) await refusal;
    yield* mergeExtents(this.#runs(at, at + length));
  }

  allocatedSize(): number {
    return this.#chunks.size * CHUNK_SIZE;
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  bytes(): Uint8Array {
    if (this.#size > SNAPSHOT_LIMIT) {
      throw new ZcowError(
        "OUT_OF_RANGE",
        `${this.name} is ${this.#size} bytes long, a snapshot holds at most ${SNAPSHOT_LIMIT}`,
        {
          data: { path: this.name, value: this.#size, limit: SNAPSHOT_LIMIT },
        },
      );
    }
    const all = new Uint8Array(this.#size);
    for (const [base, chunk] of this.#chunks) {
      if (base < this.#size) all.set(chunk.subarray(0, Math.min(CHUNK_SIZE, this.#size - base)), base);
    }
    return all;
  }

  clone(): MemoryStorage {
    const copy = new ChunkedMemoryStorage({ name: this.name });
    for (const [base, chunk] of this.#chunks) copy.#chunks.set(base, chunk);
    copy.#size = this.#size;
    copy.#shared = new Set(this.#chunks.keys());
    this.#shared = new Set(this.#chunks.keys());
    return copy;
  }

  /** The chunk at `base` for changing, made or copied when needed. */
  #chunkForChange(base: number): Uint8Array {
    const chunk = this.#chunks.get(base);
    if (chunk !== undefined && !this.#shared.has(base)) return chunk;
    const own = chunk === undefined ? new Uint8Array(CHUNK_SIZE) : chunk.slice();
    this.#chunks.set(base, own);
    this.#shared.delete(base);
    return own;
  }

  #put(at: number, from: Uint8Array): void {
    let done = 0;
    while (done < from.length) {
      const position = at + done;
      const base = alignDown(position, CHUNK_SIZE);
      const skip = position - base;
      const count = Math.min(CHUNK_SIZE - skip, from.length - done);
      this.#chunkForChange(base).set(from.subarray(done, done + count), skip);
      done += count;
    }
    if (from.length > 0) this.#size = Math.max(this.#size, at + from.length);
  }

  /** Zeroes [at, at + length), dropping chunks that become all zero. Costs time by chunks held, not by length. */
  #clear(at: number, length: number): void {
    const end = at + length;
    for (const base of this.#chunkBases(at, end)) {
      const from = Math.max(at, base) - base;
      const to = Math.min(end, base + CHUNK_SIZE) - base;
      if (from === 0 && (to === CHUNK_SIZE || base + to >= this.#size)) {
        this.#chunks.delete(base);
        this.#shared.delete(base);
      } else {
        this.#chunkForChange(base).fill(0, from, to);
      }
    }
  }

  /** Offsets of the chunks held that touch [at, end), ascending. */
  #chunkBases(at: number, end: number): number[] {
    const bases: number[] = [];
    if (end <= at) return bases;
    const first = alignDown(at, CHUNK_SIZE);
    if ((end - first) / CHUNK_SIZE <= this.#chunks.size) {
      for (let base = first; base < end; base += CHUNK_SIZE) {
        if (this.#chunks.has(base)) bases.push(base);
      }
      return bases;
    }
    for (const base of this.#chunks.keys()) {
      if (base + CHUNK_SIZE > at && base < end) bases.push(base);
    }
    return bases.toSorted((a, b) => a - b);
  }

  *#runs(at: number, end: number): Generator<StorageExtent> {
    let position = at;
    const dataEnd = Math.min(end, this.#size);
    for (const base of this.#chunkBases(at, dataEnd)) {
      const from = Math.max(base, at);
      const to = Math.min(base + CHUNK_SIZE, dataEnd);
      yield { offset: position, length: from - position, hole: true };
      yield { offset: from, length: to - from, hole: false };
      position = to;
    }
    yield { offset: position, length: end - position, hole: true };
  }

  #refuse(at: number, length: number): Promise<void> | undefined {
    if (this.#closed) return Promise.reject(closedError(this.name));
    const error = rangeError(this.name, at, length);
    return error === undefined ? undefined : Promise.reject(error);
  }

  #refuseChange(): Promise<void> | undefined {
    return this.capabilities.writable ? undefined : Promise.reject(readOnlyError(this.name));
  }
}

/**
 * A storage in memory, sparse in chunks of 64 KiB: a terabyte that was never written takes no room.
 *
 * `initial` is the first content (copied) or the length in bytes of an all-zero storage.
 */
export function memoryStorage(initial: Uint8Array | number = 0, options: MemoryStorageOptions = {}): MemoryStorage {
  return new ChunkedMemoryStorage(options).fill(initial);
}
