import type { Storage } from "../../storage/storage.js";
import type { ClusterAllocator } from "./allocator.js";
import type { DeferredFrees } from "./deferred-frees.js";
import { entryHigh, entryLow } from "./entries.js";
import type { Qcow2Geometry } from "./geometry.js";
import type { GuestMap } from "./mapping.js";
import { type MetadataOwners, OWNER_L2 } from "./overlap.js";

export interface L2TableParts {
  readonly storage: Storage;
  readonly geometry: Qcow2Geometry;
  readonly map: GuestMap;
  readonly owners: MetadataOwners;
  readonly frees: DeferredFrees;
  readonly allocator: ClusterAllocator;
  /** Tells that bytes were written that no cache holds. */
  readonly onUnheldWrite: () => void;
}

/** Provides L2 tables that may be changed in place: new ones for holes in L1, copies for shared ones. */
export class L2Tables {
  readonly #parts: L2TableParts;
  readonly #making = new Map<number, Promise<void>>();
  /** Until it resolves, the L1 table stays as it is. */
  #held: Promise<void> | undefined;

  constructor(parts: L2TableParts) {
    this.#parts = parts;
  }

  /** File offset of the table that L1 entry `index` refers to, ready to be changed. */
  async writable(index: number): Promise<number> {
    for (;;) {
      const making = this.#making.get(index);
      if (making !== undefined) {
        // Its maker reports a failure; whoever waits here tries anew.
        await making.catch(() => undefined);
        continue;
      }
      const table = this.#parts.map.tableAt(index);
      if (table !== 0 && this.#parts.map.isTableCopied(index)) return table;
      const made = this.#make(index, table);
      this.#making.set(index, made);
      try {
        await made;
      } finally {
        this.#making.delete(index);
      }
    }
  }

  /** Runs `step`, meanwhile no entry of the L1 table changes: who has made an L2 table waits. One step at a time. */
  async holdingL1(step: () => Promise<void>): Promise<void> {
    let release = nothing;
    this.#held = new Promise((resolve) => {
      release = resolve;
    });
    try {
      await step();
    } finally {
      this.#held = undefined;
      release();
    }
  }

  /** The new table is complete in the file before L1 refers to it, even in memory. */
  async #make(index: number, old: number): Promise<void> {
    const { geometry, map, owners, frees, allocator } = this.#parts;
    const { offset } = await allocator.allocate(1, true);
    try {
      await this.#fill(offset, index, old);
      while (this.#held !== undefined) await this.#held;
    } catch (error) {
      await allocator.release(offset, 1).catch(() => undefined);
      throw error;
    }
    map.cache.forget(offset, geometry.clusterSize);
    owners.claim(OWNER_L2, offset, geometry.clusterSize);
    map.l1.set(index, entryHigh(offset, true), entryLow(offset, false));
    if (old === 0) return;
    owners.release(OWNER_L2, old, geometry.clusterSize);
    frees.add(old, geometry.clusterSize);
  }

  async #fill(offset: number, index: number, old: number): Promise<void> {
    const { storage, geometry } = this.#parts;
    // Real bytes, not a hole: entries must find room on the host later, or acknowledged data could not be flushed.
    const bytes = new Uint8Array(geometry.clusterSize);
    if (old !== 0) await this.#copy(bytes, index, old);
    storage.debug?.event("l2_alloc.write");
    await storage.write(offset, bytes);
    this.#parts.onUnheldWrite();
  }

  async #copy(bytes: Uint8Array, index: number, old: number): Promise<void> {
    const { geometry, map, storage } = this.#parts;
    storage.debug?.event("l2_alloc.cow_read");
    const firstCluster = map.firstCluster(index);
    for (let cluster = 0; cluster < geometry.l2Entries; cluster += map.sliceEntries) {
      const slice = await map.acquire(old, firstCluster + cluster);
      bytes.set(slice.bytes, slice.at - old);
      map.cache.release(slice);
    }
  }
}

const nothing = (): void => undefined;
