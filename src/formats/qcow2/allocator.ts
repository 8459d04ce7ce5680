import { ZcowError } from "../../base/errors.js";
import { alignUp } from "../../base/integers.js";
import type { MaybePromise } from "../../base/maybe-promise.js";
import { Mutex } from "../../base/mutex.js";
import { clusterIndex, type HostOffset, hostOffset, MiB } from "../../base/units.js";
import type { Storage } from "../../storage/storage.js";
import type { DeferredFrees } from "./deferred-frees.js";
import type { Qcow2Geometry } from "./geometry.js";
import type { ImageHeader } from "./image-header.js";
import type { MetadataOwners } from "./overlap.js";
import { type ClusterRun, clusterAt, clusterStart, clustersTouched } from "./positions.js";
import { planGrowth, writeGrowth } from "./refcount-growth.js";
import type { Refcounts } from "./refcounts.js";
import { ZeroedClusters } from "./zeroed-clusters.js";

/** A file that is made longer ahead of its use gets twice as long, or so many bytes longer: that waits for everybody who is writing to it. */
const GROWTH_BYTES = 64 * MiB;

export interface AllocatorParts {
  readonly storage: Storage;
  readonly geometry: Qcow2Geometry;
  readonly header: ImageHeader;
  readonly refcounts: Refcounts;
  readonly owners: MetadataOwners;
  readonly frees: DeferredFrees;
  /** Writes all metadata back. */
  readonly flush: () => MaybePromise<void>;
  /** One storage flush. */
  readonly barrier: () => MaybePromise<void>;
  /** Reports corruption; always throws. */
  readonly corrupt: (error: ZcowError) => Promise<never>;
}

/** Clusters that now belong to the caller, with a count of 1. */
export interface Allocation {
  readonly offset: HostOffset;
  readonly count: number;
  /** Never used since the file got there, or made a hole since: reads as zeros. */
  readonly fresh: boolean;
}

/**
 * Hands out host clusters, first fit. One allocation at a time: this lock is held for refcount work only, never for
 * guest data.
 */
export class ClusterAllocator {
  readonly #parts: AllocatorParts;
  readonly #lock = new Mutex();
  /** No cluster below is free. */
  #firstFree = 0;
  /** Host offset from which on no byte was ever written. */
  #freshFrom: number;
  /** Below it, clusters that read as zeros again. */
  readonly #zeroed = new ZeroedClusters();
  /** The file was made longer than the clusters in it need. */
  #isLonger = false;
  /** Where the next compressed data goes: inside a cluster that holds some already. 0: in a new cluster. */
  #tail = 0;

  constructor(parts: AllocatorParts) {
    this.#parts = parts;
    this.#freshFrom = alignUp(parts.storage.size(), parts.geometry.clusterSize);
  }

  /**
   * 1 .. `wanted` contiguous clusters, or exactly `wanted` when `exact`. Fails with `NO_SPACE`, `FILE_TOO_LARGE`,
   * `REFCOUNT_OVERFLOW`, `IMAGE_CORRUPT`; then nothing is allocated.
   */
  async allocate(wanted: number, exact: boolean): Promise<Allocation> {
    // Were the lock taken for what needs no waiting, one slow request would make all that follow it slow, for ever.
    const allocation = this.#allocateNow(wanted, false);
    if (allocation !== undefined) return allocation;
    return this.#lock.run(() => this.#allocate(wanted, exact));
  }

  /**
   * Exactly `count` clusters in this turn, by what is in memory; undefined when that is not enough, or when they would
   * not be fresh although `mustBeFresh`. Then nothing has changed, and `allocate` is the way.
   */
  allocateNow(count: number, mustBeFresh: boolean): HostOffset | undefined {
    return this.#allocateNow(count, mustBeFresh)?.offset;
  }

  #allocateNow(count: number, mustBeFresh: boolean): Allocation | undefined {
    const { refcounts, geometry, header, owners, storage } = this.#parts;
    storage.debug?.event("cluster_alloc");
    if (this.#lock.isBusy || header.isUncertain) return undefined;
    const first = refcounts.findFreeNow(this.#firstFree, count);
    if (first < 0) return undefined;
    for (let i = 0; i < count; i++) if (owners.ownerOf(first + i) !== 0) return undefined;
    const offset = clusterStart(first, geometry);
    if (mustBeFresh && offset < this.#freshFrom && !this.#zeroed.has(first, count)) return undefined;
    if (!storage.capabilities.resizable && offset + count * geometry.clusterSize > storage.size()) return undefined;
    if (!refcounts.raiseNow(first, count)) return undefined;
    this.#firstFree = first + count;
    return { offset, count, fresh: this.#use(offset, count) };
  }

  /**
   * Makes the file long enough for clusters that were handed out up to `end`, and longer, ahead of others: in bytes that nobody has, and that
   * nobody is given meanwhile, since a storage may bring them to zeros late.
   */
  makeRoom(end: number): MaybePromise<void> {
    const { storage } = this.#parts;
    if (end <= storage.size()) return undefined;
    return this.#lock.run(async () => {
      this.#isLonger = true;
      const from = Math.max(storage.size(), this.#freshFrom);
      await storage.writeZeroes(from, Math.min(from, GROWTH_BYTES));
    });
  }

  /** Where the file may end: what lies behind was never used. Undefined when it ends where it was left. */
  get unusedFrom(): number | undefined {
    return this.#isLonger ? this.#freshFrom : undefined;
  }

  /** Gives back clusters that no mapping in the file has ever referred to; they can be handed out at once. */
  async release(offset: number, count: number): Promise<void> {
    const first = clusterAt(offset, this.#parts.geometry);
    await this.#parts.refcounts.decrease({ first, count });
    this.noteFree(first);
  }

  /**
   * `length` bytes for compressed data, less than a cluster: right after the data before, as far as its cluster may be shared
   * further, so that they may begin in one cluster and end in the next. Each cluster they touch is counted once more. Fails as `allocate`.
   */
  allocateBytes(length: number): Promise<HostOffset> {
    return this.#lock.run(() => this.#allocateBytes(length));
  }

  /** Gives back bytes that no mapping has ever referred to. */
  releaseBytes(offset: number, length: number): Promise<void> {
    return this.#lock.run(async () => {
      const { geometry, refcounts } = this.#parts;
      const run = clustersTouched(offset, length, geometry);
      for (let cluster = run.first; cluster < run.first + run.count; cluster = clusterIndex(cluster + 1)) {
        const { count } = await refcounts.runOfEqual(cluster, 1);
        if (count === 1) this.#leaveTail(cluster, 1);
        await refcounts.decrease({ first: cluster, count: 1 });
        if (count === 1) this.noteFree(cluster);
      }
    });
  }

  /** From now on, no compressed data is added to the clusters of `run`, which are about to be given back. */
  seal(run: ClusterRun): MaybePromise<void> {
    if (!this.#lock.isBusy) return this.#leaveTail(run.first, run.count);
    return this.#lock.run(async () => this.#leaveTail(run.first, run.count));
  }

  #leaveTail(first: number, count: number): void {
    const cluster = clusterAt(this.#tail, this.#parts.geometry);
    if (cluster >= first && cluster < first + count) this.#tail = 0;
  }

  async #allocateBytes(length: number): Promise<HostOffset> {
    const { geometry, refcounts, storage } = this.#parts;
    storage.debug?.event("cluster_alloc_bytes");
    const tail = this.#tail;
    const shared = clusterAt(tail, geometry);
    const mayShare = tail !== 0 && (await refcounts.runOfEqual(shared, 1)).count < geometry.maxRefcount;
    const room = alignUp(tail, geometry.clusterSize) - tail;
    let start = hostOffset(tail);
    let added: HostOffset | undefined;
    if (!mayShare || room < length) {
      added = (await this.#allocate(1, true)).offset;
      if (!mayShare || added !== tail + room) start = added;
    }
    try {
      if (start === tail) await refcounts.increase({ first: shared, count: 1 });
    } catch (error) {
      if (added !== undefined) await this.release(added, 1).catch(() => undefined);
      throw error;
    }
    const end = start + length;
    this.#tail = end % geometry.clusterSize === 0 ? 0 : end;
    return start;
  }

  /** A hole was punched in clusters that are about to become free: they read as zeros. Must come before their counts go down. */
  noteZeroed(first: number, count: number): void {
    this.#zeroed.add(first, count);
  }

  /** The count of `cluster` went to 0. */
  noteFree(cluster: number): void {
    if (cluster < this.#firstFree) this.#firstFree = cluster;
  }

  async #allocate(wanted: number, exact: boolean): Promise<Allocation> {
    const { refcounts, geometry, header } = this.#parts;
    for (;;) {
      // Which refcount table the file has is not known, and the other one may lie in clusters that look free.
      if (header.isUncertain) await header.restore();
      const from = this.#firstFree;
      // Clusters that become free during the search lower it again.
      this.#firstFree = Number.POSITIVE_INFINITY;
      let known = from;
      try {
        const run = await refcounts.findFree(from, wanted, exact);
        known = run.firstFree;
        await this.#refuseMetadata(run);
        this.#refuseBeyondEnd(run);
        const uncovered = refcounts.uncovered(run);
        if (uncovered !== undefined) {
          await this.#cover(uncovered, exact && wanted >= geometry.refcountsPerBlock ? run.first : uncovered);
          continue;
        }
        await refcounts.increase(run);
        if (run.first === run.firstFree) known = run.first + run.count;
        const offset = clusterStart(run.first, geometry);
        return { offset, count: run.count, fresh: this.#use(offset, run.count) };
      } finally {
        this.noteFree(known);
      }
    }
  }

  /**
   * Makes the refcount block for `cluster`, and a larger table when the table does not reach it. The block goes to the free cluster
   * `place`: with each block in what it counts itself, there would never be more clusters in a row than one counts.
   */
  async #cover(cluster: number, place: number): Promise<void> {
    const { refcounts, geometry } = this.#parts;
    const table = refcounts.table;
    if (table !== undefined && refcounts.blockIndex(cluster) >= table.entries) return this.#growTable(cluster);
    const index = refcounts.blockIndex(cluster);
    const counting = refcounts.blockIndex(place);
    // Its entry must not get into the file before the one of the block that counts it.
    if (counting !== index) {
      while (table?.isWaiting(counting) === true) await this.#parts.flush();
    }
    this.#use(place * geometry.clusterSize, 1);
    return refcounts.createBlock(index, place);
  }

  async #growTable(cluster: number): Promise<void> {
    const { storage, geometry, header, refcounts, frees } = this.#parts;
    // The new table is a copy: entries that wait for their block to be durable must not be in it.
    for (let table = refcounts.table; table?.isDirty === true; table = refcounts.table) await this.#parts.flush();
    const old = refcounts.table;
    if (old === undefined) return;
    const plan = planGrowth(cluster, old.entries, geometry);
    this.#refuseBeyondEnd({
      first: clusterAt(plan.first * geometry.clusterSize, geometry),
      count: plan.blocks + plan.tableClusters,
    });
    this.#use(plan.first * geometry.clusterSize, plan.blocks + plan.tableClusters);
    storage.debug?.event("reftable_grow");
    const table = await writeGrowth(storage, plan, old, geometry);
    await this.#parts.barrier();
    storage.debug?.event("refblock_alloc.switch_table");
    await header.update((current) => ({
      ...current,
      refcountTableOffset: table.at,
      refcountTableClusters: plan.tableClusters,
    }));
    refcounts.cache.forget(plan.first * geometry.clusterSize, plan.blocks * geometry.clusterSize);
    refcounts.adopt(table);
    frees.add(old.at, old.bytes.length);
  }

  /** Marks clusters as used from now on; true when they never were before. */
  #use(offset: number, count: number): boolean {
    const first = clusterAt(offset, this.#parts.geometry);
    const fresh = offset >= this.#freshFrom || this.#zeroed.has(first, count);
    this.#zeroed.remove(first, count);
    const end = offset + count * this.#parts.geometry.clusterSize;
    this.#freshFrom = Math.max(this.#freshFrom, end);
    // The compressed data that the tail followed is gone, whoever gave its cluster back.
    if (this.#tail >= offset && this.#tail < end) this.#tail = 0;
    return fresh;
  }

  async #refuseMetadata(run: ClusterRun): Promise<void> {
    const { owners, geometry, corrupt } = this.#parts;
    for (let i = 0; i < run.count; i++) {
      const owner = owners.ownerOf(run.first + i);
      if (owner === 0) continue;
      const offset = clusterStart(run.first + i, geometry);
      const name = owners.nameOf(owner);
      await corrupt(
        new ZcowError("IMAGE_CORRUPT", `Cluster at file offset ${offset} has refcount 0 but holds the ${name}`, {
          data: { structure: name, field: "refcount", offset, value: 0, limit: 1 },
          stockText:
            offset === 0
              ? "Preventing invalid allocation of data cluster at offset 0"
              : `Preventing invalid write on metadata (overlaps with ${name})`,
        }),
      );
    }
  }

  #refuseBeyondEnd(run: ClusterRun): void {
    const { storage, geometry } = this.#parts;
    const end = (run.first + run.count) * geometry.clusterSize;
    if (end > Number.MAX_SAFE_INTEGER) {
      throw new ZcowError("FILE_TOO_LARGE", `${storage.name} cannot grow to ${end} bytes, the limit is 2^53-1`, {
        data: { path: storage.name, value: end, limit: Number.MAX_SAFE_INTEGER },
      });
    }
    if (storage.capabilities.resizable || end <= storage.size()) return;
    throw new ZcowError("NO_SPACE", `${storage.name} is full: ${storage.size()} bytes, ${end} needed`, {
      data: { path: storage.name, value: end, limit: storage.size() },
    });
  }
}
