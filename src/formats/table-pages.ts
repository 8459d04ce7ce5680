import { viewOf } from "../base/bytes.js";
import { isPromise, type MaybePromise } from "../base/maybe-promise.js";
import { KiB } from "../base/units.js";
import type { Storage } from "../storage/storage.js";

const PAGE_BYTES = 64 * KiB;
/** 4 MiB in all: a table of any size is read with this much memory. */
const PAGES = 64;
/** Entries compared for each one that is asked for: a moment, which many small reads of one place can spare. */
const MOST_EQUAL = 512;

/** Entries of a table, one after the other, that all have one value. */
export interface EqualEntries {
  readonly value: number;
  readonly count: number;
}

/** The same of entries of 64 bits. */
export interface EqualWideEntries {
  readonly low: number;
  readonly high: number;
  readonly count: number;
}

/** Looks at large tables of a file through a bounded cache of pages, least recently used first out. */
export class TablePages {
  readonly #storage: Storage;
  readonly #pages = new Map<number, DataView>();

  constructor(storage: Storage) {
    this.#storage = storage;
  }

  /**
   * The unsigned 32-bit little-endian or big-endian number at file offset `at`, a multiple of 4, and how many entries from there on are
   * equal to it: `most` at most, and not all where there are many. A table of millions of entries that say nothing is gone through in pieces.
   */
  u32(at: number, littleEndian: boolean, most = MOST_EQUAL): MaybePromise<EqualEntries> {
    const page = this.#page(at);
    const inside = at % PAGE_BYTES;
    return isPromise(page)
      ? page.then((view) => equalEntries(view, inside, littleEndian, most))
      : equalEntries(page, inside, littleEndian, most);
  }

  /** The little-endian 64-bit field at file offset `at`, a multiple of 8, as two halves, and how many from there on are equal to it, as in `u32`. */
  u64(at: number, most = MOST_EQUAL): MaybePromise<EqualWideEntries> {
    const page = this.#page(at);
    const inside = at % PAGE_BYTES;
    return isPromise(page) ? page.then((view) => equalHalves(view, inside, most)) : equalHalves(page, inside, most);
  }

  #page(at: number): MaybePromise<DataView> {
    const start = at - (at % PAGE_BYTES);
    const known = this.#pages.get(start);
    if (known !== undefined) {
      // Insertion order is the order of last use.
      this.#pages.delete(start);
      this.#pages.set(start, known);
      return known;
    }
    const bytes = new Uint8Array(PAGE_BYTES);
    const wait = this.#storage.read(start, bytes);
    return isPromise(wait) ? wait.then(() => this.#keep(start, viewOf(bytes))) : this.#keep(start, viewOf(bytes));
  }

  #keep(start: number, page: DataView): DataView {
    this.#pages.set(start, page);
    if (this.#pages.size > PAGES) {
      for (const oldest of this.#pages.keys()) {
        this.#pages.delete(oldest);
        break;
      }
    }
    return page;
  }
}

function equalEntries(view: DataView, at: number, littleEndian: boolean, most: number): EqualEntries {
  const value = view.getUint32(at, littleEndian);
  const end = Math.min(view.byteLength, at + most * 4);
  let next = at + 4;
  while (next < end && view.getUint32(next, littleEndian) === value) next += 4;
  return { value, count: (next - at) / 4 };
}

function equalHalves(view: DataView, at: number, most: number): EqualWideEntries {
  const low = view.getUint32(at, true);
  const high = view.getUint32(at + 4, true);
  const end = Math.min(view.byteLength, at + most * 8);
  let next = at + 8;
  while (next < end && view.getUint32(next, true) === low && view.getUint32(next + 4, true) === high) next += 8;
  return { low, high, count: (next - at) / 8 };
}
