/** Memory for the data of writes, used again and again: most hosts write in one or two sizes. */
import { MiB } from "../../base/units.js";

/** Free memory kept for later, bytes. */
const KEPT_BYTES = 8 * MiB;
/** Sizes kept apart. A host that uses ever new sizes gains nothing from keeping them. */
const KEPT_SIZES = 32;

/** One size, and what is free of it. */
interface SizeClass {
  readonly size: number;
  readonly free: Uint8Array[];
}

export class DataBuffers {
  readonly #allocate: (bytes: number) => Uint8Array;
  /** The size that was given back last is the last one. */
  readonly #classes = new Map<number, SizeClass>();
  #latest: SizeClass | undefined = undefined;
  #freeBytes = 0;

  constructor(allocate: (bytes: number) => Uint8Array) {
    this.#allocate = allocate;
  }

  /** `length` bytes with any contents: all of them must be overwritten before they are used. */
  take(length: number): Uint8Array {
    const found = this.#latest?.size === length ? this.#latest : this.#classes.get(length);
    const kept = found?.free.pop();
    if (kept === undefined) return this.#allocate(length);
    this.#freeBytes -= length;
    return kept;
  }

  /** Gives back what `take` returned. Nothing may use it any more. */
  give(buffer: Uint8Array): void {
    const size = buffer.length;
    if (this.#latest?.size !== size) this.#latest = this.#nowLatest(size);
    this.#latest.free.push(buffer);
    this.#freeBytes += size;
    if (this.#freeBytes > KEPT_BYTES) this.#shrink();
  }

  /** Free memory kept for later, bytes. */
  get freeBytes(): number {
    return this.#freeBytes;
  }

  #nowLatest(size: number): SizeClass {
    const found = this.#classes.get(size) ?? { size, free: [] };
    this.#classes.delete(size);
    this.#classes.set(size, found);
    const [oldest] = this.#classes.values();
    if (oldest !== undefined && this.#classes.size > KEPT_SIZES) this.#drop(oldest, 0);
    return found;
  }

  /** What was not used for the longest time goes first: hosts change from one size to another. */
  #shrink(): void {
    for (const one of this.#classes.values()) {
      this.#drop(one, KEPT_BYTES);
      if (this.#freeBytes <= KEPT_BYTES) return;
    }
  }

  /** Drops memory of one size until nothing of it is left, or no more than `enough` bytes in all. */
  #drop({ size, free }: SizeClass, enough: number): void {
    while (this.#freeBytes > enough && free.length > 0) {
      free.pop();
      this.#freeBytes -= size;
    }
    if (free.length > 0) return;
    this.#classes.delete(size);
    if (this.#latest?.size === size) this.#latest = undefined;
  }
}
