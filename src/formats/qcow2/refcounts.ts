import { ZcowError } from "../../base/errors.js";
import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { clusterIndex } from "../../base/units.js";
import type { Storage } from "../../storage/storage.js";
import { entryHigh, entryLow } from "./entries.js";
import type { Qcow2Geometry } from "./geometry.js";
import { type MetadataOwners, OWNER_REFBLOCK, OWNER_REFTABLE } from "./overlap.js";
import type { ClusterRun } from "./positions.js";
import { getRefcount, isReftableEntryCorrupt, reftableEntryOffset, setRefcount } from "./refcount-entries.js";
import type { RootTable } from "./root-table.js";
import type { TableCache, TableSlice } from "./table-cache.js";

export interface RefcountParts {
  readonly storage: Storage;
  readonly geometry: Qcow2Geometry;
  readonly cache: TableCache;
  readonly owners: MetadataOwners;
  /** Makes room in the caches: writes all metadata back. */
  readonly flush: () => MaybePromise<void>;
  /** Tells that bytes were written that no cache holds. */
  readonly onUnheldWrite: () => void;
}

/**
 * Reference counts of host clusters (qcow2 specification, "Host cluster management"): the refcount table in
 * memory, blocks through the cache. A missing block means that every cluster it would cover is free.
 *
 * Counts go up under the lock of the allocator; they go down from anywhere, because only clusters that nobody
 * else can get are given back.
 */
export class Refcounts {
  readonly cache: TableCache;
  /** Told of every entry that is set in the refcount table, whichever is in use. Set before the first `adopt`. */
  onTableSet: RootTable["onSet"] = undefined;
  readonly #parts: RefcountParts;
  readonly #order: number;
  /** Bits of a count. */
  readonly #bits: number;
  /** Counts in one slice of a block. */
  readonly #sliceCounts: number;
  #table: RootTable | undefined;

  constructor(parts: RefcountParts) {
    this.#parts = parts;
    this.cache = parts.cache;
    this.#order = parts.geometry.refcountOrder;
    this.#bits = parts.geometry.refcountBits;
    this.#sliceCounts = (parts.cache.sliceSize * 8) / parts.geometry.refcountBits;
  }

  /** Undefined until the first `adopt`. */
  get table(): RootTable | undefined {
    return this.#table;
  }

  get isDirty(): boolean {
    return this.cache.isDirty || (this.#table?.isDirty ?? false);
  }

  /** Makes `table` the refcount table from now on, and tells the overlap check where it is and which blocks are new. */
  adopt(table: RootTable): void {
    const { owners, geometry } = this.#parts;
    const known = this.#table?.entries ?? 0;
    if (this.#table !== undefined) owners.release(OWNER_REFTABLE, this.#table.at, this.#table.bytes.length);
    table.onSet = this.onTableSet;
    this.#table = table;
    owners.claim(OWNER_REFTABLE, table.at, table.bytes.length);
    for (let index = known; index < table.entries; index++) {
      const high = table.high(index);
      const low = table.low(index);
      if ((high | low) === 0 || isReftableEntryCorrupt(high, low, geometry.clusterSize)) continue;
      owners.claim(OWNER_REFBLOCK, reftableEntryOffset(high, low), geometry.clusterSize);
    }
  }

  /** Index of the block that counts `cluster`. */
  blockIndex(cluster: number): number {
    return Math.floor(cluster / this.#parts.geometry.refcountsPerBlock);
  }

  /** File offset of block `index`, 0 when there is none. Throws `IMAGE_CORRUPT`. */
  blockAt(index: number): number {
    const table = this.#loaded();
    if (index >= table.entries) return 0;
    const high = table.high(index);
    const low = table.low(index);
    const offset = reftableEntryOffset(high, low);
    if (!isReftableEntryCorrupt(high, low, this.#parts.geometry.clusterSize)) return offset;
    throw new ZcowError(
      "IMAGE_CORRUPT",
      `Refcount table entry ${index} is 0x${offset.toString(16)}, not a multiple of the cluster size ${this.#parts.geometry.clusterSize} below 2^53`,
      {
        data: { structure: "refcount table", field: `entry ${index}`, value: offset },
        stockText: `Refblock offset 0x${offset.toString(16)} unaligned (reftable index: 0x${index.toString(16)})`,
      },
    );
  }

  /** The count of `first`, and how many clusters from there on, at most `limit`, surely have the same. */
  async runOfEqual(first: number, limit: number): Promise<{ readonly count: number; readonly clusters: number }> {
    const block = this.blockAt(this.blockIndex(first));
    if (block === 0) return { count: 0, clusters: Math.min(limit, this.#untilBlockEnd(first)) };
    const slice = await this.#acquire(this.#sliceOffset(block, first));
    const start = this.#inSlice(first);
    const end = Math.min(this.#sliceCounts, start + limit);
    const count = getRefcount(slice.bytes, start, this.#order);
    let at = start + 1;
    while (at < end && getRefcount(slice.bytes, at, this.#order) === count) at += 1;
    this.cache.release(slice);
    return { count, clusters: at - start };
  }

  /**
   * The first run of free clusters at or after `from`: `wanted` clusters when `exact`, else 1 .. `wanted`.
   * `firstFree` is the first free cluster seen, part of the run or not.
   */
  async findFree(from: number, wanted: number, exact: boolean): Promise<ClusterRun & { readonly firstFree: number }> {
    let first = from;
    let count = 0;
    let firstFree = -1;
    while (count < wanted) {
      const cluster = first + count;
      const block = this.blockAt(this.blockIndex(cluster));
      if (block === 0) {
        if (firstFree < 0) firstFree = cluster;
        count += Math.min(wanted - count, this.#untilBlockEnd(cluster));
        continue;
      }
      const acquired = this.#acquire(this.#sliceOffset(block, cluster));
      const slice = isPromise(acquired) ? await acquired : acquired;
      for (let at = this.#inSlice(cluster); at < this.#sliceCounts && count < wanted; at++) {
        if (getRefcount(slice.bytes, at, this.#order) === 0) {
          if (firstFree < 0) firstFree = first + count;
          count += 1;
        } else if (count > 0 && !exact) {
          this.cache.release(slice);
          return { first: clusterIndex(first), count, firstFree };
        } else {
          first += count + 1;
          count = 0;
        }
      }
      this.cache.release(slice);
    }
    return { first: clusterIndex(first), count, firstFree };
  }

  /** The first free cluster at or after `from` when `count` in a row are free there and one slice in memory tells; else -1. */
  findFreeNow(from: number, count: number): number {
    const slice = this.#peek(from);
    if (slice === undefined) return -1;
    let at = this.#inSlice(from);
    const start = at;
    while (at < this.#sliceCounts && getRefcount(slice.bytes, at, this.#order) !== 0) at += 1;
    if (at + count > this.#sliceCounts) return -1;
    for (let i = 1; i < count; i++) if (getRefcount(slice.bytes, at + i, this.#order) !== 0) return -1;
    return from + at - start;
  }

  /** Makes the counts of a run that `findFreeNow` found 1; false, with nothing changed, when the cache must be written first. */
  raiseNow(first: number, count: number): boolean {
    const slice = this.#peek(first);
    if (slice === undefined || !this.cache.mayEdit(slice)) return false;
    const at = this.#inSlice(first);
    this.cache.edit(slice, (at * this.#bits) >>> 3, ((at + count) * this.#bits + 7) >>> 3);
    for (let i = 0; i < count; i++) setRefcount(slice.bytes, at + i, this.#order, 1);
    return true;
  }

  /** The first cluster of `run` whose block does not exist, undefined when all do. */
  uncovered(run: ClusterRun): number | undefined {
    const last = this.blockIndex(run.first + run.count - 1);
    for (let index = this.blockIndex(run.first); index <= last; index++) {
      if (this.blockAt(index) === 0) return Math.max(run.first, index * this.#parts.geometry.refcountsPerBlock);
    }
    return undefined;
  }

  /** Makes the missing block `index` out of `cluster`, a free cluster that it counts itself, or one that another block counts. */
  async createBlock(index: number, cluster: number): Promise<void> {
    const { storage, geometry, owners } = this.#parts;
    const isOwn = index === this.blockIndex(cluster);
    const offset = cluster * geometry.clusterSize;
    storage.debug?.event("refblock_alloc");
    storage.debug?.event("refblock_alloc.write");
    // Real bytes, not a hole: counts must find room on the host later.
    await storage.write(offset, new Uint8Array(geometry.clusterSize));
    this.#parts.onUnheldWrite();
    this.cache.forget(offset, geometry.clusterSize);
    if (isOwn) {
      const slice = await this.#editable(this.#sliceOffset(offset, cluster));
      this.cache.edit(slice);
      setRefcount(slice.bytes, this.#inSlice(cluster), this.#order, 1);
      this.cache.release(slice);
    } else {
      await this.increase({ first: clusterIndex(cluster), count: 1 });
    }
    owners.claim(OWNER_REFBLOCK, offset, geometry.clusterSize);
    this.#loaded().set(index, entryHigh(offset, false), entryLow(offset, false));
  }

  /** Adds one to each count. Every block must exist. When it fails, counts already raised are lowered again. */
  async increase(run: ClusterRun): Promise<void> {
    let done = 0;
    try {
      while (done < run.count) {
        const cluster = run.first + done;
        done += await this.#change(cluster, run.count - done, (count) => count + 1);
      }
    } catch (error) {
      if (done > 0) await this.decrease({ first: run.first, count: done }).catch(() => undefined);
      throw error;
    }
  }

  /** Takes one from each count. Counts of 0, and counts too large to know, stay as they are. */
  async decrease(run: ClusterRun): Promise<void> {
    for (let done = 0; done < run.count; ) {
      const cluster = run.first + done;
      if (this.blockAt(this.blockIndex(cluster)) === 0) {
        done += Math.min(run.count - done, this.#untilBlockEnd(cluster));
      } else {
        done += await this.#change(cluster, run.count - done, (count) => Math.max(0, count - 1));
      }
    }
  }

  /** Changes counts from `cluster` on, within one slice, at most `limit`; returns how many. */
  async #change(cluster: number, limit: number, change: (count: number) => number): Promise<number> {
    const slice = await this.#editable(this.#sliceOffset(this.blockAt(this.blockIndex(cluster)), cluster));
    const start = this.#inSlice(cluster);
    const end = Math.min(this.#sliceCounts, start + limit);
    this.cache.edit(slice, (start * this.#bits) >>> 3, (end * this.#bits + 7) >>> 3);
    let at = start;
    try {
      for (; at < end; at++) {
        const count = getRefcount(slice.bytes, at, this.#order);
        if (Number.isFinite(count)) setRefcount(slice.bytes, at, this.#order, change(count));
      }
    } catch (error) {
      while (at-- > start) {
        setRefcount(slice.bytes, at, this.#order, getRefcount(slice.bytes, at, this.#order) - 1);
      }
      throw error;
    } finally {
      this.cache.release(slice);
    }
    return end - start;
  }

  async #editable(at: number): Promise<TableSlice> {
    for (;;) {
      const slice = await this.#acquire(at);
      if (this.cache.mayEdit(slice)) return slice;
      this.cache.release(slice);
      await this.#parts.flush();
    }
  }

  /** The slice with the count of `cluster`, when it is in memory and its table entry is sound. */
  #peek(cluster: number): TableSlice | undefined {
    const index = this.blockIndex(cluster);
    const table = this.#loaded();
    if (index >= table.entries) return undefined;
    const high = table.high(index);
    const low = table.low(index);
    if ((high | low) === 0 || isReftableEntryCorrupt(high, low, this.#parts.geometry.clusterSize)) return undefined;
    return this.cache.peek(this.#sliceOffset(reftableEntryOffset(high, low), cluster));
  }

  #acquire(at: number): MaybePromise<TableSlice> {
    const size = this.#parts.storage.size();
    if (at < size) return this.cache.acquire(at);
    throw new ZcowError(
      "IMAGE_CORRUPT",
      `A refcount block at file offset ${at} lies past the end of the file, which has ${size} bytes`,
      { data: { structure: "refcount block", offset: at, value: at, limit: size } },
    );
  }

  #untilBlockEnd(cluster: number): number {
    const perBlock = this.#parts.geometry.refcountsPerBlock;
    return perBlock - (cluster - this.blockIndex(cluster) * perBlock);
  }

  #sliceOffset(block: number, cluster: number): number {
    const inBlock = cluster - this.blockIndex(cluster) * this.#parts.geometry.refcountsPerBlock;
    return block + Math.floor(inBlock / this.#sliceCounts) * this.cache.sliceSize;
  }

  #inSlice(cluster: number): number {
    return cluster - Math.floor(cluster / this.#sliceCounts) * this.#sliceCounts;
  }

  #loaded(): RootTable {
    if (this.#table === undefined) throw new Error("the refcount table is used before it is loaded");
    return this.#table;
  }
}
