import { viewOf } from "../../base/bytes.js";
import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import type { DebugEvent } from "../../storage/debug/events.js";
import type { Storage } from "../../storage/storage.js";

/**
 * A piece of an L2 table or refcount block in memory.
 *
 * `bytes` and `view` are replaced, not changed, while a write of them is under way: read them
 * afresh after every `await`, and change them only through `TableCache.edit`.
 */
export class TableSlice {
  /** File offset of the slice, bytes. */
  readonly at: number;
  /** `at` counted in slices: a small integer, which a Map finds faster than a file offset. */
  readonly key: number;
  bytes: Uint8Array;
  view: DataView;
  /** Holds changes that no write-back has picked up. */
  dirty = false;
  /** The bytes that a write-back is about to make durable. While they are also `bytes`, a change needs a copy first. */
  frozen: Uint8Array | undefined;
  /** Holders that need the slice to stay. */
  pins = 0;
  /** Set until the first load has ended. */
  loading: Promise<void> | undefined;
  linked = false;
  newer: TableSlice | undefined;
  older: TableSlice | undefined;

  constructor(key: number, size: number) {
    this.at = key * size;
    this.key = key;
    this.bytes = new Uint8Array(size);
    this.view = viewOf(this.bytes);
  }
}

/**
 * A bounded cache of table slices, found by file offset.
 *
 * Only clean slices that nobody holds are in the recency list, so evicting one is a single step and never
 * writes. Dirty slices leave through `WriteBack`, which knows what must be durable before them; to leave
 * room for clean ones, `mayEdit` refuses to make more than half of the cache dirty.
 * The bound is exceeded only by slices that are held at this moment, one per request in flight.
 */
export class TableCache {
  readonly sliceSize: number;
  readonly capacity: number;
  /** Told of every edit. */
  onEdit: ((slice: TableSlice, from: number, to: number) => void) | undefined = undefined;
  readonly #storage: Storage;
  /** What faults can be tied to when a slice is loaded. */
  readonly #loadEvent: DebugEvent;
  readonly #slices = new Map<number, TableSlice>();
  readonly #dirty = new Set<TableSlice>();
  #writing = 0;
  #newest: TableSlice | undefined;
  #oldest: TableSlice | undefined;

  /** `sliceSize` in bytes; `capacity` in slices, at least 2. */
  constructor(storage: Storage, sliceSize: number, capacity: number, loadEvent: DebugEvent = "l2_load") {
    this.#storage = storage;
    this.#loadEvent = loadEvent;
    this.sliceSize = sliceSize;
    this.capacity = Math.max(2, capacity);
  }

  get size(): number {
    return this.#slices.size;
  }

  get isDirty(): boolean {
    return this.#dirty.size > 0 || this.#writing > 0;
  }

  /** The slice when it is in memory now. Valid until the next `await`. */
  peek(at: number): TableSlice | undefined {
    const slice = this.#slices.get(at / this.sliceSize);
    if (slice === undefined || slice.loading !== undefined) return undefined;
    if (slice.linked && slice !== this.#newest) {
      this.#unlink(slice);
      this.#link(slice);
    }
    return slice;
  }

  /** As `acquire`, but undefined when the slice is not in memory now. */
  acquireCached(at: number): TableSlice | undefined {
    const slice = this.peek(at);
    if (slice !== undefined) this.#pin(slice);
    return slice;
  }

  /** The slice, loaded if need be, and held until `release`. Rejects when the storage cannot read it. */
  acquire(at: number): MaybePromise<TableSlice> {
    const key = at / this.sliceSize;
    let slice = this.#slices.get(key);
    if (slice !== undefined) {
      this.#pin(slice);
      return slice.loading === undefined ? slice : this.#whenLoaded(slice, slice.loading);
    }
    slice = new TableSlice(key, this.sliceSize);
    this.#slices.set(key, slice);
    this.#pin(slice);
    let wait: MaybePromise<void>;
    try {
      this.#storage.debug?.event(this.#loadEvent);
      wait = this.#storage.read(at, slice.bytes);
    } catch (error) {
      this.#drop(slice);
      throw error;
    }
    if (!isPromise(wait)) return slice;
    slice.loading = this.#load(slice, wait);
    return this.#whenLoaded(slice, slice.loading);
  }

  release(slice: TableSlice): void {
    slice.pins -= 1;
    this.#place(slice);
  }

  /** Whether `edit` may be called now. If not, write back first. */
  mayEdit(slice: TableSlice): boolean {
    return slice.dirty || this.#dirty.size + this.#writing < Math.max(1, this.capacity >>> 1);
  }

  /** Prepares bytes [from, to) of `slice`, all of it when left out, for a change made right after this call, in the same turn. */
  edit(slice: TableSlice, from = 0, to = this.sliceSize): void {
    this.onEdit?.(slice, from, to);
    if (slice.frozen === slice.bytes) {
      slice.bytes = slice.bytes.slice();
      slice.view = viewOf(slice.bytes);
    }
    if (slice.dirty) return;
    slice.dirty = true;
    this.#dirty.add(slice);
    this.#place(slice);
  }

  /** Drops clean slices of [at, at + length): the clusters got, or will get, another meaning. */
  forget(at: number, length: number): void {
    for (let offset = at; offset < at + length; offset += this.sliceSize) {
      const slice = this.#slices.get(offset / this.sliceSize);
      if (slice !== undefined) this.#drop(slice);
    }
  }

  /** Takes all dirty slices into a write-back: their bytes stay as they are now until `settle`. */
  freeze(): TableSlice[] {
    const slices = [...this.#dirty];
    this.#dirty.clear();
    for (const slice of slices) {
      slice.dirty = false;
      slice.frozen = slice.bytes;
    }
    this.#writing += slices.length;
    return slices;
  }

  /** Ends a write-back of `slices`; when it failed they are dirty again, with all later changes. */
  settle(slices: readonly TableSlice[], durable: boolean): void {
    this.#writing -= slices.length;
    for (const slice of slices) {
      slice.frozen = undefined;
      if (!durable && !slice.dirty && this.#slices.get(slice.key) === slice) {
        slice.dirty = true;
        this.#dirty.add(slice);
      }
      this.#place(slice);
    }
  }

  async #load(slice: TableSlice, wait: Promise<void>): Promise<void> {
    try {
      await wait;
      slice.loading = undefined;
    } catch (error) {
      this.#drop(slice);
      throw error;
    }
  }

  async #whenLoaded(slice: TableSlice, loading: Promise<void>): Promise<TableSlice> {
    await loading;
    return slice;
  }

  #pin(slice: TableSlice): void {
    slice.pins += 1;
    if (slice.linked) this.#unlink(slice);
  }

  /** Puts the slice into the recency list, or takes it out, as its state demands. */
  #place(slice: TableSlice): void {
    const evictable =
      slice.pins === 0 && !slice.dirty && slice.frozen === undefined && this.#slices.get(slice.key) === slice;
    if (evictable && !slice.linked) {
      this.#link(slice);
      this.#trim();
    } else if (!evictable && slice.linked) {
      this.#unlink(slice);
    }
  }

  #trim(): void {
    while (this.#slices.size > this.capacity && this.#oldest !== undefined) this.#drop(this.#oldest);
  }

  #drop(slice: TableSlice): void {
    if (slice.linked) this.#unlink(slice);
    if (slice.dirty) {
      slice.dirty = false;
      this.#dirty.delete(slice);
    }
    if (this.#slices.get(slice.key) === slice) this.#slices.delete(slice.key);
  }

  #link(slice: TableSlice): void {
    slice.linked = true;
    slice.older = this.#newest;
    slice.newer = undefined;
    if (this.#newest === undefined) this.#oldest = slice;
    else this.#newest.newer = slice;
    this.#newest = slice;
  }

  #unlink(slice: TableSlice): void {
    slice.linked = false;
    if (slice.newer === undefined) this.#newest = slice.older;
    else slice.newer.older = slice.older;
    if (slice.older === undefined) this.#oldest = slice.newer;
    else slice.older.newer = slice.newer;
    slice.newer = undefined;
    slice.older = undefined;
  }
}
