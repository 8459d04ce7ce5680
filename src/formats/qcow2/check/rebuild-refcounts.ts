import { viewOf, writeU64 } from "../../../base/bytes.js";
import { ZcowError } from "../../../base/errors.js";
import { ceilDiv } from "../../../base/integers.js";
import { isPromise } from "../../../base/maybe-promise.js";
import type { Qcow2Header } from "../header.js";
import { MAX_REFTABLE_BYTES } from "../limits.js";
import { setRefcount } from "../refcount-entries.js";
import type { CheckSession } from "./check-session.js";
import { switchRefcountTable } from "./header-patch.js";
import type { ReferenceCounts } from "./reference-counts.js";

/**
 * Makes the refcount structures anew from the references found.
 *
 * | on disk | state of the image |
 * |---|---|
 * | new blocks and table in clusters that nothing uses, then a flush | the old structures are in force, untouched |
 * | the header names the new table, then a flush | the new structures are in force; the old ones are free space |
 */
export class RefcountRebuild {
  readonly #session: CheckSession;
  /** References of everything except refcount structures; the new structures are added as they are placed. */
  readonly #counts: ReferenceCounts;
  /** References including the old refcount structures, whose clusters must stay as they are until the switch. */
  readonly #old: ReferenceCounts;
  readonly #blocks = new Map<number, number>();
  readonly #pending: number[] = [];
  #placed = 0;
  #lastIndex = -1;
  #cursor = 1;

  /** `session` walked the image without its refcount structures; `old` counts them too. */
  constructor(session: CheckSession, old: ReferenceCounts) {
    this.#session = session;
    this.#counts = session.counts;
    this.#old = old;
  }

  /** Returns the header that is on disk afterwards. */
  async run(): Promise<Qcow2Header> {
    this.#findNeededBlocks();
    this.#placeBlocks();
    const { offset, clusters } = this.#placeTable();
    await this.#writeBlocks();
    await this.#writeTable(offset, clusters);
    const { storage, header } = this.#session;
    return switchRefcountTable(storage, header, offset, clusters);
  }

  #findNeededBlocks(): void {
    const { refcountsPerBlock } = this.#session.geometry;
    const counts = this.#counts;
    for (let cluster = counts.nextTouched(0); cluster < counts.clusters; ) {
      if (counts.get(cluster) === 0) {
        cluster = counts.nextTouched(cluster + 1);
        continue;
      }
      const index = Math.floor(cluster / refcountsPerBlock);
      this.#need(index);
      cluster = counts.nextTouched((index + 1) * refcountsPerBlock);
    }
  }

  #need(index: number): void {
    if (this.#blocks.has(index)) return;
    this.#blocks.set(index, 0);
    this.#pending.push(index);
    this.#lastIndex = Math.max(this.#lastIndex, index);
  }

  /** A placed block needs a count itself, perhaps in a block that is not there yet: goes on until none is missing. */
  #placeBlocks(): void {
    while (this.#placed < this.#pending.length) {
      const index = this.#pending[this.#placed++] as number;
      this.#blocks.set(index, this.#takeRun(1));
    }
  }

  #placeTable(): { offset: number; clusters: number } {
    const { clusterSize } = this.#session.geometry;
    for (let clusters = this.#tableClusters(); ; clusters = this.#tableClusters()) {
      const first = this.#takeRun(clusters);
      this.#placeBlocks();
      if (this.#tableClusters() <= clusters) return { offset: first * clusterSize, clusters };
      for (let cluster = first; cluster < first + clusters; cluster++) this.#counts.set(cluster, 0);
    }
  }

  #tableClusters(): number {
    const { clusterSize } = this.#session.geometry;
    const clusters = ceilDiv((this.#lastIndex + 1) * 8, clusterSize);
    if (clusters * clusterSize <= MAX_REFTABLE_BYTES) return clusters;
    throw new ZcowError(
      "CHECK_LIMIT",
      `A new refcount table would take ${clusters * clusterSize} bytes, above the limit of ${MAX_REFTABLE_BYTES}`,
      { data: { structure: "refcount table", value: clusters * clusterSize, limit: MAX_REFTABLE_BYTES } },
    );
  }

  /** First of `length` neighbouring free clusters, counted from now on. */
  #takeRun(length: number): number {
    let first = this.#cursor;
    for (let cluster = first; cluster < first + length; cluster++) {
      if (this.#isFree(cluster)) continue;
      first = cluster + 1;
    }
    const { refcountsPerBlock } = this.#session.geometry;
    for (let cluster = first; cluster < first + length; cluster++) {
      this.#counts.set(cluster, 1);
      this.#need(Math.floor(cluster / refcountsPerBlock));
    }
    if (length === 1) this.#cursor = first + 1;
    return first;
  }

  #isFree(cluster: number): boolean {
    if (cluster >= this.#counts.clusters) {
      throw new ZcowError("CHECK_LIMIT", `No room for new refcount structures below cluster ${this.#counts.clusters}`, {
        data: { structure: "refcount table", limit: this.#counts.clusters },
      });
    }
    return this.#counts.get(cluster) === 0 && (cluster >= this.#old.clusters || this.#old.get(cluster) === 0);
  }

  async #writeBlocks(): Promise<void> {
    const { clusterSize, refcountsPerBlock, refcountOrder } = this.#session.geometry;
    const bytes = new Uint8Array(clusterSize);
    for (const [index, at] of this.#blocks) {
      bytes.fill(0);
      const first = index * refcountsPerBlock;
      for (let entry = 0; entry < refcountsPerBlock && first + entry < this.#counts.clusters; entry++) {
        const count = this.#counts.get(first + entry);
        if (count > 0) setRefcount(bytes, entry, refcountOrder, count);
      }
      await this.#write(at * clusterSize, bytes);
    }
  }

  async #writeTable(offset: number, clusters: number): Promise<void> {
    const { clusterSize } = this.#session.geometry;
    const bytes = new Uint8Array(clusters * clusterSize);
    const view = viewOf(bytes);
    for (const [index, at] of this.#blocks) writeU64(view, index * 8, at * clusterSize);
    await this.#write(offset, bytes);
  }

  async #write(offset: number, bytes: Uint8Array): Promise<void> {
    const wait = this.#session.storage.write(offset, bytes);
    if (isPromise(wait)) await wait;
  }
}
