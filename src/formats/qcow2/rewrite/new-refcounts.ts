import { viewOf } from "../../../base/bytes.js";
import { ZcowError } from "../../../base/errors.js";
import { ceilDiv } from "../../../base/integers.js";
import { isPromise, type MaybePromise } from "../../../base/maybe-promise.js";
import { MiB } from "../../../base/units.js";
import type { Storage } from "../../../storage/storage.js";
import { entryHigh, entryLow } from "../entries.js";
import type { Qcow2Geometry } from "../geometry.js";
import { MAX_REFTABLE_BYTES, TABLE_ENTRY_BYTES } from "../limits.js";
import type { MetadataOwners } from "../overlap.js";
import { getRefcount, setRefcount } from "../refcount-entries.js";
import type { RefcountSource } from "./refcount-source.js";

/** A block of the new refcounts in memory. */
interface NewBlock {
  readonly bytes: Uint8Array;
  /** Differs from what the file has at its place, or has no place yet. */
  dirty: boolean;
}

/** Where the new refcount table lies: a file offset, and a number of clusters. */
export interface NewReftable {
  readonly offset: number;
  readonly clusters: number;
}

/** Neighbouring host clusters, by number. */
export interface ClusterSpan {
  readonly first: number;
  readonly count: number;
}

/** Memory for new blocks: those that were not used for the longest time go to their place in the file beyond it. */
const MEMORY_BYTES = 32 * MiB;
const FEWEST_BLOCKS = 8;
/** Freed runs remembered for punching holes; beyond, space is free for the image but stays with it on the host. */
const MAX_FREED_SPANS = 2 ** 18;

/**
 * The refcounts that an image is going to have, beside those that it has.
 *
 * Blocks that change are written to clusters that are free in the old counts and in the new ones; the blocks that stay as
 * they are serve both tables. Nothing that the old header refers to is written, so the old image stays whole until another
 * header names the new table, and what is freed by the change is not used by it.
 */
export class NewRefcounts {
  readonly #storage: Storage;
  readonly #old: RefcountSource;
  readonly #oldGeometry: Qcow2Geometry;
  readonly #geometry: Qcow2Geometry;
  readonly #owners: MetadataOwners;
  readonly #blocks = new Map<number, NewBlock>();
  /** Cluster of each block that has changed and has its place. */
  readonly #places = new Map<number, number>();
  readonly #capacity: number;
  /** Clusters taken for the new image; their counts are raised at the end, so that taking one never needs a block. */
  readonly #taken: ClusterSpan[] = [];
  /** Clusters of old refcount structures that have been replaced; their counts are lowered at the end. */
  readonly #replaced: number[] = [];
  /** No cluster below is free, or it has been taken. */
  #next = 1;

  /** `geometry` differs from `oldGeometry` in the width of counts at most. */
  constructor(
    storage: Storage,
    old: RefcountSource,
    oldGeometry: Qcow2Geometry,
    geometry: Qcow2Geometry,
    owners: MetadataOwners,
  ) {
    this.#storage = storage;
    this.#old = old;
    this.#oldGeometry = oldGeometry;
    this.#geometry = geometry;
    this.#owners = owners;
    this.#capacity = Math.max(FEWEST_BLOCKS, Math.floor(MEMORY_BYTES / geometry.clusterSize));
  }

  /** The new count of `cluster`. */
  count(cluster: number): MaybePromise<number> {
    const block = this.#blocks.get(this.#indexOf(cluster));
    return block === undefined ? this.#countLater(cluster) : this.#read(block, cluster);
  }

  /**
   * Adds `delta`, 1 or -1, to the counts of a run. Throws `REFCOUNT_OVERFLOW`, and `IMAGE_CORRUPT` for a count that is 0
   * already: the image must be checked first.
   */
  add(first: number, count: number, delta: 1 | -1): MaybePromise<void> {
    const index = this.#indexOf(first);
    const block = this.#blocks.get(index);
    if (block === undefined || this.#indexOf(first + count - 1) !== index) return this.#addLater(first, count, delta);
    for (let cluster = first; cluster < first + count; cluster++) this.#change(block, cluster, delta);
    return undefined;
  }

  async #countLater(cluster: number): Promise<number> {
    return this.#read(await this.#load(this.#indexOf(cluster)), cluster);
  }

  async #addLater(first: number, count: number, delta: 1 | -1): Promise<void> {
    for (let cluster = first; cluster < first + count; cluster++) {
      const index = this.#indexOf(cluster);
      this.#change(this.#blocks.get(index) ?? (await this.#load(index)), cluster, delta);
    }
  }

  #indexOf(cluster: number): number {
    return Math.floor(cluster / this.#geometry.refcountsPerBlock);
  }

  #read(block: NewBlock, cluster: number): number {
    const { refcountsPerBlock, refcountOrder } = this.#geometry;
    return getRefcount(block.bytes, cluster - this.#indexOf(cluster) * refcountsPerBlock, refcountOrder);
  }

  #change(block: NewBlock, cluster: number, delta: number): void {
    const { refcountsPerBlock, refcountOrder, clusterSize } = this.#geometry;
    const within = cluster - this.#indexOf(cluster) * refcountsPerBlock;
    const count = getRefcount(block.bytes, within, refcountOrder);
    // A count too large to know stays what it is.
    if (!Number.isFinite(count)) return;
    if (count + delta < 0) {
      throw new ZcowError(
        "IMAGE_CORRUPT",
        `The cluster at file offset ${cluster * clusterSize} is in use but has refcount 0; check and repair the image first`,
        { data: { structure: "refcount block", field: "refcount", offset: cluster * clusterSize, value: 0, limit: 1 } },
      );
    }
    setRefcount(block.bytes, within, refcountOrder, count + delta);
    block.dirty = true;
  }

  // --- blocks ---------------------------------------------------------------------------------------

  async #load(index: number): Promise<NewBlock> {
    await this.#makeRoom();
    const block: NewBlock = { bytes: new Uint8Array(this.#geometry.clusterSize), dirty: false };
    const place = this.#places.get(index);
    if (place === undefined) {
      block.dirty = await this.#fillFromOld(block.bytes, index);
    } else {
      const wait = this.#storage.read(place * this.#geometry.clusterSize, block.bytes);
      if (isPromise(wait)) await wait;
    }
    this.#blocks.set(index, block);
    return block;
  }

  async #makeRoom(): Promise<void> {
    while (this.#blocks.size >= this.#capacity) {
      const [index, block] = this.#blocks.entries().next().value as [number, NewBlock];
      if (block.dirty) await this.#write(index, block);
      this.#blocks.delete(index);
    }
  }

  async #write(index: number, block: NewBlock): Promise<void> {
    await this.#place(index);
    const wait = this.#storage.write((this.#places.get(index) as number) * this.#geometry.clusterSize, block.bytes);
    if (isPromise(wait)) await wait;
    block.dirty = false;
  }

  /** Gives block `index` a place, when it has none; the old block is not needed any more then. */
  async #place(index: number): Promise<void> {
    if (this.#places.has(index)) return;
    this.#places.set(index, await this.allocate(1));
    const old = this.#isNewWidth ? 0 : this.#old.blockOffset(index);
    if (old !== 0) this.#replaced.push(old / this.#geometry.clusterSize);
  }

  get #isNewWidth(): boolean {
    return this.#geometry.refcountOrder !== this.#oldGeometry.refcountOrder;
  }

  async #fillFromOld(into: Uint8Array, index: number): Promise<boolean> {
    const { refcountOrder, refcountsPerBlock } = this.#geometry;
    if (refcountOrder === this.#oldGeometry.refcountOrder) {
      const old = await this.#old.block(index);
      if (old !== undefined) into.set(old);
      return false;
    }
    let isUsed = false;
    for (let within = 0; within < refcountsPerBlock; within++) {
      const cluster = index * refcountsPerBlock + within;
      const oldIndex = Math.floor(cluster / this.#oldGeometry.refcountsPerBlock);
      const old = await this.#old.block(oldIndex);
      const end = Math.min((oldIndex + 1) * this.#oldGeometry.refcountsPerBlock - cluster, refcountsPerBlock - within);
      if (old !== undefined) isUsed = this.#convert(old, into, cluster, end) || isUsed;
      within += end - 1;
    }
    return isUsed;
  }

  /** Brings `length` counts from an old block into one of another width; true when one is not 0. */
  #convert(old: Uint8Array, into: Uint8Array, cluster: number, length: number): boolean {
    const from = cluster % this.#oldGeometry.refcountsPerBlock;
    const to = cluster % this.#geometry.refcountsPerBlock;
    let isUsed = false;
    for (let i = 0; i < length; i++) {
      const count = getRefcount(old, from + i, this.#oldGeometry.refcountOrder);
      if (count === 0) continue;
      if (count > this.#geometry.maxRefcount) throw this.#tooWide(cluster + i, count);
      setRefcount(into, to + i, this.#geometry.refcountOrder, count);
      isUsed = true;
    }
    return isUsed;
  }

  #tooWide(cluster: number, count: number): ZcowError {
    const { clusterSize, refcountBits, maxRefcount } = this.#geometry;
    const offset = cluster * clusterSize;
    return new ZcowError(
      "REFCOUNT_OVERFLOW",
      `Counts of ${refcountBits} bits are too narrow: the cluster at file offset ${offset} has refcount ${count}, above ${maxRefcount}`,
      {
        data: { structure: "refcount block", field: "refcount", offset, value: count, limit: maxRefcount },
        stockText: `Cannot decrease refcount entry width to ${refcountBits} bits: Cluster at offset 0x${offset.toString(16)} has a refcount of ${count}`,
      },
    );
  }

  // --- allocation -----------------------------------------------------------------------------------

  /** First of `count` neighbouring clusters that are free in the file and not taken yet; their new counts will be 1. */
  async allocate(count: number): Promise<number> {
    const { refcountsPerBlock } = this.#oldGeometry;
    let first = this.#next;
    for (let cluster = first; cluster < first + count; ) {
      const index = Math.floor(cluster / refcountsPerBlock);
      const block = await this.#old.block(index);
      const end = (index + 1) * refcountsPerBlock;
      for (; cluster < end && cluster < first + count; cluster++) {
        if (!this.#isFree(block, cluster)) first = cluster + 1;
      }
    }
    this.#next = first + count;
    this.#refuseBeyondEnd((first + count) * this.#geometry.clusterSize);
    this.#taken.push({ first, count });
    return first;
  }

  /** `block` counts the cluster in the file. Metadata are left alone even where their counts are wrong. */
  #isFree(block: Uint8Array | undefined, cluster: number): boolean {
    const { refcountsPerBlock, refcountOrder } = this.#oldGeometry;
    if (block !== undefined && getRefcount(block, cluster % refcountsPerBlock, refcountOrder) !== 0) return false;
    return this.#owners.ownerOf(cluster) === 0;
  }

  #refuseBeyondEnd(end: number): void {
    const { capabilities, name } = this.#storage;
    if (capabilities.resizable || end <= this.#storage.size()) return;
    throw new ZcowError("NO_SPACE", `${name} is full: ${this.#storage.size()} bytes, ${end} needed`, {
      data: { path: name, value: end, limit: this.#storage.size() },
    });
  }

  // --- the end --------------------------------------------------------------------------------------

  /**
   * Counts what was taken, the new structures among it, and writes them. Not durable: nothing refers to them yet. Throws
   * `FILE_TOO_LARGE` for a table above 8 MiB. `onProgress` is told how much of a new width is done, 0 to 1.
   */
  async finish(onProgress: (done: number) => void = () => undefined): Promise<NewReftable> {
    if (this.#isNewWidth) await this.#convertAll(onProgress);
    for (let i = 0; i < this.#old.table.bytes.length / this.#geometry.clusterSize; i++) {
      this.#replaced.push(this.#old.table.at / this.#geometry.clusterSize + i);
    }
    let table = { first: 0, clusters: 0 };
    let taken = 0;
    let replaced = 0;
    for (;;) {
      while (taken < this.#taken.length || replaced < this.#replaced.length) {
        const span = this.#taken[taken];
        if (span === undefined) {
          await this.add(this.#replaced[replaced++] as number, 1, -1);
        } else {
          taken += 1;
          await this.add(span.first, span.count, 1);
        }
      }
      for (const [index, block] of this.#blocks) if (block.dirty) await this.#place(index);
      if (taken < this.#taken.length || replaced < this.#replaced.length) continue;
      const needed = this.#tableClusters();
      if (needed <= table.clusters) break;
      for (let i = 0; i < table.clusters; i++) this.#replaced.push(table.first + i);
      table = { first: await this.allocate(needed), clusters: needed };
    }
    for (const [index, block] of this.#blocks) if (block.dirty) await this.#write(index, block);
    const wait = this.#storage.write(table.first * this.#geometry.clusterSize, this.#tableBytes(table.clusters));
    if (isPromise(wait)) await wait;
    return { offset: table.first * this.#geometry.clusterSize, clusters: table.clusters };
  }

  async #convertAll(onProgress: (done: number) => void): Promise<void> {
    const covered = this.#old.table.entries * this.#oldGeometry.refcountsPerBlock;
    const clusters = Math.min(covered, ceilDiv(this.#storage.size(), this.#geometry.clusterSize));
    const last = ceilDiv(clusters, this.#geometry.refcountsPerBlock);
    for (let index = 0; index < last; index++) {
      if (!this.#blocks.has(index) && !this.#places.has(index)) await this.#load(index);
      onProgress((index + 1) / last);
    }
    for (let index = 0; index < this.#old.table.entries; index++) {
      const offset = this.#old.blockOffset(index);
      if (offset !== 0) this.#replaced.push(offset / this.#geometry.clusterSize);
    }
  }

  #tableClusters(): number {
    const { clusterSize } = this.#geometry;
    const largest = [...this.#places.keys()].reduce((a, b) => Math.max(a, b), 0);
    const kept = this.#isNewWidth ? 0 : this.#old.table.bytes.length / clusterSize;
    const clusters = Math.max(kept, ceilDiv((largest + 1) * TABLE_ENTRY_BYTES, clusterSize));
    if (clusters * clusterSize <= MAX_REFTABLE_BYTES) return clusters;
    throw new ZcowError(
      "FILE_TOO_LARGE",
      `A new refcount table would take ${clusters * clusterSize} bytes, above the limit of ${MAX_REFTABLE_BYTES}`,
      { data: { structure: "refcount table", value: clusters * clusterSize, limit: MAX_REFTABLE_BYTES } },
    );
  }

  #tableBytes(clusters: number): Uint8Array {
    const bytes = new Uint8Array(clusters * this.#geometry.clusterSize);
    if (!this.#isNewWidth) bytes.set(this.#old.table.bytes);
    const view = viewOf(bytes);
    for (const [index, place] of this.#places) {
      const offset = place * this.#geometry.clusterSize;
      view.setUint32(index * TABLE_ENTRY_BYTES, entryHigh(offset, false));
      view.setUint32(index * TABLE_ENTRY_BYTES + 4, entryLow(offset, false));
    }
    return bytes;
  }

  /**
   * The clusters that the change has freed, as far as they are remembered. To be asked for when the new table is in force, and
   * before anything is written to them.
   */
  async freed(): Promise<readonly ClusterSpan[]> {
    const spans: ClusterSpan[] = [];
    if (this.#isNewWidth) return this.#replaced.map((first) => ({ first, count: 1 }));
    for (const index of this.#places.keys()) {
      const old = await this.#old.block(index);
      if (old === undefined) continue;
      const block = this.#blocks.get(index) ?? (await this.#load(index));
      this.#freedInBlock(spans, index, old, block.bytes);
      if (spans.length > MAX_FREED_SPANS) break;
    }
    return spans;
  }

  /** The last cluster below `clusters` that is in use. To be asked for when the new table is in force. */
  async lastUsed(clusters: number): Promise<number> {
    const { refcountsPerBlock } = this.#geometry;
    let cluster = clusters - 1;
    while (cluster > 0) {
      const start = this.#indexOf(cluster) * refcountsPerBlock;
      // A sparse file may be long, and most of it without a block.
      if (this.#hasNoBlock(this.#indexOf(cluster))) {
        cluster = start - 1;
        continue;
      }
      for (; cluster >= Math.max(1, start); cluster--) {
        const count = this.count(cluster);
        if ((isPromise(count) ? await count : count) !== 0) return cluster;
      }
    }
    return 0;
  }

  #hasNoBlock(index: number): boolean {
    if (this.#isNewWidth || this.#blocks.has(index) || this.#places.has(index)) return false;
    return this.#old.blockOffset(index) === 0;
  }

  #freedInBlock(spans: ClusterSpan[], index: number, old: Uint8Array, now: Uint8Array): void {
    const { refcountsPerBlock, refcountOrder, refcountBits } = this.#geometry;
    const step = Math.max(1, 64 / refcountBits);
    const [before, after] = [viewOf(old), viewOf(now)];
    for (let start = 0; start < refcountsPerBlock; start += step) {
      // Most counts are the same: eight bytes at once.
      const at = (start * refcountBits) / 8;
      const isSame =
        before.getUint32(at) === after.getUint32(at) && before.getUint32(at + 4) === after.getUint32(at + 4);
      if (isSame) continue;
      for (let within = start; within < start + step; within++) {
        const isFreed = getRefcount(old, within, refcountOrder) !== 0 && getRefcount(now, within, refcountOrder) === 0;
        if (isFreed) addCluster(spans, index * refcountsPerBlock + within);
      }
    }
  }
}

function addCluster(spans: ClusterSpan[], cluster: number): void {
  const last = spans.at(-1);
  if (last === undefined || last.first + last.count !== cluster) spans.push({ first: cluster, count: 1 });
  else spans[spans.length - 1] = { first: last.first, count: last.count + 1 };
}
