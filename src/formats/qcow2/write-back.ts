import { ZcowError } from "../../base/errors.js";
import { isPromise, type MaybePromise, whenAll } from "../../base/maybe-promise.js";
import type { Storage } from "../../storage/storage.js";
import type { DataRequests } from "./data-io.js";
import type { DeferredFrees, FreedRange } from "./deferred-frees.js";
import type { GuestData } from "./guest-data.js";
import type { ImageHeader } from "./image-header.js";
import type { LatePadding } from "./late-padding.js";
import type { MetadataChanges } from "./metadata-changes.js";
import { type MetadataOwners, OWNER_L1, OWNER_L2, OWNER_REFBLOCK, OWNER_REFTABLE } from "./overlap.js";
import type { Refcounts } from "./refcounts.js";
import type { RootTable, RootUpdate } from "./root-table.js";
import type { TableCache, TableSlice } from "./table-cache.js";

/** What a write-back needs of the engine. */
export interface WriteBackParts {
  readonly storage: Storage;
  readonly data: GuestData;
  readonly header: ImageHeader;
  readonly refcounts: Refcounts;
  readonly l2: TableCache;
  readonly l1: RootTable;
  readonly frees: DeferredFrees;
  readonly owners: MetadataOwners;
  readonly requests: DataRequests;
  /** Refcounts need not be in the file before the mappings that count on them: the dirty bit says so. */
  readonly lazyRefcounts: () => boolean;
  /** Why nothing may be written any more. */
  readonly refusal: () => Error | undefined;
  /** Reports corruption; always throws. */
  readonly corrupt: (error: ZcowError) => Promise<never>;
  /** Clusters that need zeros before their entries are written. */
  readonly latePadding: LatePadding;
  /** Keeps a journal of what is not in the file yet. */
  readonly changes: MetadataChanges | undefined;
}

/** All that was dirty when a write-back began, as it was then. */
interface Batch {
  readonly withRefcounts: boolean;
  readonly blocks: TableSlice[];
  readonly reftable: { readonly table: RootTable; readonly update: RootUpdate } | undefined;
  readonly slices: TableSlice[];
  readonly l1: RootUpdate;
  readonly frees: FreedRange[];
}

/**
 * The only writer of refcount blocks, refcount table entries, L2 tables and L1 entries.
 *
 * A write-back takes everything dirty at one moment (a consistent state, because mappings and counts change in memory
 * in the order of rule R1 in engine.ts) and writes it in four groups with a storage flush, a barrier, after each:
 *
 *     refcount blocks | refcount table entries | L2 tables | L1 entries
 *
 * Empty groups cost nothing, and the first barrier also makes guest data durable. Changes made meanwhile go to copies and
 * belong to the next write-back. Nothing counts as written until the barrier after it: a failure anywhere
 * leaves the whole batch dirty.
 */
export class WriteBack {
  /** Bytes that are not in memory any more, guest data above all, were written since the last barrier. */
  unflushedData = false;
  readonly #parts: WriteBackParts;
  #running: Promise<void> | undefined;
  #next: { readonly work: Promise<void>; full: boolean } | undefined;
  #lost: ZcowError | undefined;

  constructor(parts: WriteBackParts) {
    this.#parts = parts;
  }

  get isDirty(): boolean {
    const { refcounts, l2, l1, frees } = this.#parts;
    return refcounts.isDirty || l2.isDirty || l1.isDirty || frees.isWaiting;
  }

  /**
   * Makes durable what is complete at the call. `full`: refcounts too where they are lazy.
   * Calls that arrive while a write-back runs share the one that follows it.
   */
  flush(full: boolean): MaybePromise<void> {
    if (this.#running === undefined) return this.#start(full);
    if (this.#next === undefined) {
      const next = { full, work: this.#running.then(nothing, nothing).then(() => this.#startNext()) };
      this.#next = next;
    } else if (full) {
      this.#next.full = true;
    }
    return this.#next.work;
  }

  #startNext(): MaybePromise<void> {
    const full = this.#next?.full ?? false;
    this.#next = undefined;
    return this.#start(full);
  }

  #start(full: boolean): MaybePromise<void> {
    const nothingDirty = !this.isDirty && !this.#parts.header.isUncertain;
    const refusal = nothingDirty ? undefined : this.#parts.refusal();
    if (refusal !== undefined) throw refusal;
    const work = nothingDirty ? this.barrier() : this.#run(full);
    if (!isPromise(work)) return undefined;
    const running = work.finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }

  async #run(full: boolean): Promise<void> {
    // In the turn of the freeze, so that no entry is taken whose cluster has a tail.
    const { latePadding } = this.#parts;
    if (!latePadding.isEmpty) {
      this.unflushedData = true;
      const padded = latePadding.padAll();
      if (isPromise(padded)) await padded;
    }
    const batch = this.#freeze(full || !this.#parts.lazyRefcounts());
    let durable = false;
    try {
      if (this.#parts.header.isUncertain) await this.#parts.header.restore();
      await this.#write(batch);
      durable = true;
    } finally {
      this.#settle(batch, durable);
    }
  }

  #freeze(withRefcounts: boolean): Batch {
    const { refcounts, l2, l1, frees } = this.#parts;
    const table = refcounts.table;
    this.#parts.changes?.freeze(withRefcounts);
    return {
      withRefcounts,
      blocks: withRefcounts ? refcounts.cache.freeze() : [],
      reftable: withRefcounts && table !== undefined ? { table, update: table.freeze() } : undefined,
      slices: l2.freeze(),
      l1: l1.freeze(),
      frees: frees.freeze(),
    };
  }

  async #write(batch: Batch): Promise<void> {
    await this.#writeSlices("a refcount block", batch.blocks, OWNER_REFBLOCK);
    await this.barrier();
    if (batch.reftable !== undefined && batch.reftable.update.size > 0) {
      await this.#writeRoot("the refcount table", batch.reftable.table, batch.reftable.update, OWNER_REFTABLE);
      await this.barrier();
    }
    if (batch.slices.length > 0) {
      await this.#writeSlices("an L2 table", batch.slices, OWNER_L2);
      await this.barrier();
    }
    if (batch.l1.size > 0) {
      await this.#writeRoot("the L1 table", this.#parts.l1, batch.l1, OWNER_L1);
      await this.barrier();
    }
  }

  #settle(batch: Batch, durable: boolean): void {
    const { refcounts, l2, l1, frees } = this.#parts;
    refcounts.cache.settle(batch.blocks, durable);
    l2.settle(batch.slices, durable);
    frees.settle(batch.frees, durable);
    if (durable) {
      batch.reftable?.table.settle(batch.reftable.update);
      l1.settle(batch.l1);
    }
    this.#parts.changes?.settle(batch.withRefcounts, durable);
  }

  async #writeSlices(what: string, slices: readonly TableSlice[], owner: number): Promise<void> {
    const { storage, owners, corrupt } = this.#parts;
    const waits: MaybePromise<void>[] = [];
    for (const slice of slices) {
      const violation = owners.violation(what, slice.at, slice.bytes.length, owner);
      if (violation !== undefined) {
        await Promise.allSettled(waits);
        await corrupt(violation);
      }
      storage.debug?.event(owner === OWNER_L2 ? "l2_update" : "refblock_update_part");
      waits.push(startWrite(storage, slice.at, slice.frozen ?? slice.bytes));
    }
    await whenAll(waits);
  }

  async #writeRoot(what: string, table: RootTable, update: RootUpdate, owner: number): Promise<void> {
    const violation = this.#parts.owners.violation(what, table.at, table.bytes.length, owner);
    if (violation !== undefined) await this.#parts.corrupt(violation);
    this.#parts.storage.debug?.event(owner === OWNER_L1 ? "l1_update" : "refblock_alloc.hookup");
    await table.write(this.#parts.storage, update);
  }

  /**
   * One storage flush: every one of an open image goes through here. Guest data that is not in the image file is flushed
   * before it. When either fails, written guest data may be gone for good, and no later flush would tell: from then on
   * every flush fails. Tables are in memory and are written again.
   */
  barrier(): MaybePromise<void> {
    if (this.#lost !== undefined) throw this.#lost;
    const hadData = this.unflushedData || !this.#parts.requests.isEmpty;
    this.unflushedData = false;
    let wait: MaybePromise<void>;
    try {
      const data = hadData ? this.#parts.data.flush() : undefined;
      wait = isPromise(data) ? data.then(() => this.#parts.storage.flush()) : this.#parts.storage.flush();
    } catch (error) {
      throw this.#flushFailed(error, hadData);
    }
    if (!isPromise(wait)) return undefined;
    return wait.catch((error: unknown) => {
      throw this.#flushFailed(error, hadData);
    });
  }

  #flushFailed(error: unknown, hadData: boolean): unknown {
    if (!hadData) return error;
    this.unflushedData = true;
    this.#lost = new ZcowError(
      "IO_ERROR",
      `${this.#parts.storage.name}: an earlier flush failed, so data written before it may be lost; reopen the image`,
      { data: { path: this.#parts.storage.name }, cause: error },
    );
    return error;
  }
}

const nothing = (): void => undefined;

/** A write whose failure, thrown or rejected, waits to be collected by `whenAll`. */
function startWrite(storage: Storage, at: number, bytes: Uint8Array): MaybePromise<void> {
  try {
    return storage.write(at, bytes);
  } catch (error) {
    return Promise.reject(error);
  }
}
