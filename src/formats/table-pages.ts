import { viewOf } from "../base/bytes.js";
import { isPromise, type MaybePromise } from "../base/maybe-promise.js";
import { KiB } from "../base/units.js";
import type { Storage } from "../storage/storage.js";

const PAGE_BYTES = 64 * KiB;
/** 4 MiB in all: a table of any size is read with this much memory. */
const PAGES = 64;

/** Looks at large tables of a file through a bounded cache of pages, least recently used first out. */
export class TablePages {
  readonly #storage: Storage;
  readonly #pages = new Map<number, DataView>();

  constructor(storage: Storage) {
    this.#storage = storage;
  }

  /** The unsigned 32-bit little-endian or big-endian number at file offset `at`, a multiple of 4. */
  u32(at: number, littleEndian: boolean): MaybePromise<number> {
    const page = this.#page(at);
    const inside = at % PAGE_BYTES;
    return isPromise(page)
      ? page.then((view) => view.getUint32(inside, littleEndian))
      : page.getUint32(inside, littleEndian);
  }

  /** The little-endian 64-bit field at file offset `at`, a multiple of 8, as two halves. */
  u64(at: number): MaybePromise<{ readonly low: number; readonly high: number }> {
    const page = this.#page(at);
    return isPromise(page) ? page.then((view) => halves(view, at % PAGE_BYTES)) : halves(page, at % PAGE_BYTES);
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

function halves(view: DataView, at: number): { low: number; high: number } {
  return { low: view.getUint32(at, true), high: view.getUint32(at + 4, true) };
}
