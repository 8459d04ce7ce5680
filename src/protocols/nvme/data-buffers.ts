/** Memory for the data of writes, used again and again: most hosts write in one or two sizes. */
import { MiB } from "../../base/units.js";

/** Free memory kept for later, bytes. */
const KEPT_BYTES = 8 * MiB;
/** Sizes kept apart. A host that writes in ever new sizes gains nothing from keeping them. */
const KEPT_SIZES = 32;

export class DataBuffers {
  readonly #allocate: (bytes: number) => Uint8Array;
  readonly #free = new Map<number, Uint8Array[]>();
  #freeBytes = 0;

  constructor(allocate: (bytes: number) => Uint8Array) {
    this.#allocate = allocate;
  }

  /** `length` bytes with any contents: all of them must be overwritten before they are used. */
  take(length: number): Uint8Array {
    const kept = this.#free.get(length)?.pop();
    if (kept === undefined) return this.#allocate(length);
    this.#freeBytes -= length;
    return kept;
  }

  /** Gives back what `take` returned. Nothing may use it any more. */
  give(buffer: Uint8Array): void {
    if (this.#freeBytes + buffer.length > KEPT_BYTES) return;
    let list = this.#free.get(buffer.length);
    if (list === undefined) {
      if (this.#free.size >= KEPT_SIZES) this.#forget();
      list = [];
      this.#free.set(buffer.length, list);
    }
    list.push(buffer);
    this.#freeBytes += buffer.length;
  }

  #forget(): void {
    this.#free.clear();
    this.#freeBytes = 0;
  }
}
