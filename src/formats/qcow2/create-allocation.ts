import { ceilDiv } from "../../base/integers.js";
import { TABLE_ENTRY_BYTES } from "./limits.js";

/**
 * Where a new image puts things, planned without touching the file. All numbers are host clusters.
 *
 * QEMU makes an image by opening an empty one and allocating in it, so where a structure ends up depends on how its
 * allocator works: first fit from a moving start, refcount blocks placed when first needed, the request then started
 * again, and a new, larger refcount table behind everything once the old one is full. To get the same file this follows
 * the same rules. Every count is 0 or 1, so runs of used clusters describe all refcounts of an image of any size.
 */

export interface Run {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
}

/** Used clusters as sorted, disjoint, non-adjacent runs. */
export class ClusterRuns {
  #runs: Run[] = [];

  get runs(): readonly Run[] {
    return this.#runs;
  }

  /** The first run that ends after `cluster`. */
  runAfter(cluster: number): Run | undefined {
    return this.#runs[this.#indexAfter(cluster)];
  }

  add(start: number, end: number): void {
    if (start === end) return;
    const first = this.#runs.findIndex((run) => run.end >= start);
    if (first === -1) {
      this.#runs.push({ start, end });
      return;
    }
    let last = first;
    while ((this.#runs[last]?.start ?? Number.POSITIVE_INFINITY) <= end) last++;
    const touched = this.#runs.slice(first, last);
    const merged = {
      start: Math.min(start, ...touched.map((run) => run.start)),
      end: Math.max(end, ...touched.map((run) => run.end)),
    };
    this.#runs.splice(first, last - first, merged);
  }

  remove(start: number, end: number): void {
    this.#runs = this.#runs.flatMap((run) => {
      if (run.end <= start || run.start >= end) return [run];
      const left = { start: run.start, end: Math.min(run.end, start) };
      const right = { start: Math.max(run.start, end), end: run.end };
      return [left, right].filter((part) => part.start < part.end);
    });
  }

  #indexAfter(cluster: number): number {
    let low = 0;
    let high = this.#runs.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#runs[middle] as Run).end > cluster) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

/** A refcount table: entry i holds the cluster of block i, 0 = none. */
export interface PlannedReftable {
  readonly cluster: number;
  readonly clusters: number;
  readonly blocks: ReadonlyMap<number, number>;
}

export interface ClusterShape {
  readonly clusterSize: number;
  readonly refcountsPerBlock: number;
}

/** Allocates clusters of a new image whose first three are the header, the refcount table and its first block. */
export class ClusterPlan {
  readonly used = new ClusterRuns();
  /** Tables that were outgrown. Their clusters are free, and keep what was written to them. */
  readonly outgrownTables: PlannedReftable[] = [];
  readonly #shape: ClusterShape;
  #blocks = new Map<number, number>([[0, 2]]);
  #tableCluster = 1;
  #tableClusters = 1;
  #next = 0;

  constructor(shape: ClusterShape) {
    this.#shape = shape;
    this.allocate(3);
  }

  get reftable(): PlannedReftable {
    return { cluster: this.#tableCluster, clusters: this.#tableClusters, blocks: this.#blocks };
  }

  /** `count` free clusters in a row, now used. */
  allocate(count: number): number {
    for (;;) {
      const start = this.#findFree(count);
      if (this.#use(start, count)) return start;
    }
  }

  /** As many free clusters in a row from exactly `start` as there are, at most `count`, now used. */
  allocateAt(start: number, count: number): number {
    for (;;) {
      const free = Math.min(count, Math.max(0, (this.used.runAfter(start)?.start ?? Number.POSITIVE_INFINITY) - start));
      if (this.#use(start, free)) return free;
    }
  }

  /**
   * A new refcount table with all blocks needed to count `extra` clusters behind it, at exactly `start`, where everything
   * is free. Returns the first cluster after the table. `generous` leaves room in the table to grow by half.
   */
  replaceTable(
    start: number,
    extra: number,
    generous: boolean,
    newBlock?: { readonly index: number; readonly cluster: number },
  ): number {
    const { refcountsPerBlock, clusterSize } = this.#shape;
    const entriesPerCluster = clusterSize / TABLE_ENTRY_BYTES;
    const blockCount = blocksToCount(start + extra, this.#shape, generous);
    const entries = generous ? blockCount + ceilDiv(blockCount, 2) : blockCount;
    const tableClusters = ceilDiv(entries, entriesPerCluster);
    const outgrown = this.reftable;
    const blocks = new Map(this.#blocks);
    if (newBlock !== undefined) blocks.set(newBlock.index, newBlock.cluster);
    let at = start;
    for (let index = Math.floor(start / refcountsPerBlock); index < blockCount; index++) {
      if (!blocks.has(index)) blocks.set(index, at++);
    }
    this.used.add(start, at + tableClusters);
    this.outgrownTables.push(outgrown);
    this.#blocks = blocks;
    this.#tableCluster = at;
    this.#tableClusters = tableClusters;
    this.#free(outgrown.cluster, outgrown.clusters);
    return at + tableClusters;
  }

  #findFree(count: number): number {
    let start = this.#next;
    for (
      let run = this.used.runAfter(start);
      run !== undefined && run.start < start + count;
      run = this.used.runAfter(start)
    ) {
      start = run.end;
    }
    this.#next = start + count;
    return start;
  }

  /** False when a refcount block had to be made first: it may have taken one of these clusters, so the search starts again. */
  #use(start: number, count: number): boolean {
    const { refcountsPerBlock } = this.#shape;
    for (let at = start; at < start + count; ) {
      const index = Math.floor(at / refcountsPerBlock);
      if (!this.#blocks.has(index)) {
        this.#makeBlock(index, at);
        // The same clusters are tried first: they may still be free.
        this.#free(start, at - start);
        return false;
      }
      const end = Math.min(start + count, (index + 1) * refcountsPerBlock);
      this.used.add(at, end);
      at = end;
    }
    return true;
  }

  #free(start: number, count: number): void {
    this.used.remove(start, start + count);
    this.#next = Math.min(this.#next, start);
  }

  #makeBlock(index: number, forCluster: number): void {
    const { refcountsPerBlock, clusterSize } = this.#shape;
    const block = this.#findFree(1);
    if (Math.floor(block / refcountsPerBlock) === index) this.used.add(block, block + 1);
    else if (!this.#use(block, 1)) return;
    if (index < (this.#tableClusters * clusterSize) / TABLE_ENTRY_BYTES) {
      this.#blocks.set(index, block);
      return;
    }
    const start = ceilDiv(Math.max(forCluster + 1, block), refcountsPerBlock) * refcountsPerBlock;
    this.replaceTable(start, 0, true, { index, cluster: block });
  }
}

/** Refcount blocks needed to count `clusters`, the blocks themselves and their table; with `generous`, and half a table more. */
export function blocksToCount(clusters: number, shape: ClusterShape, generous: boolean): number {
  const entriesPerCluster = shape.clusterSize / TABLE_ENTRY_BYTES;
  let counted = clusters;
  let blocks = 0;
  let table = 0;
  const settle = (): void => {
    for (let total = -1; total !== counted + blocks + table; ) {
      total = counted + blocks + table;
      blocks = ceilDiv(counted + table + blocks, shape.refcountsPerBlock);
      table = ceilDiv(blocks, entriesPerCluster);
    }
  };
  settle();
  if (!generous) return blocks;
  counted += ceilDiv(table, 2);
  settle();
  return blocks;
}
