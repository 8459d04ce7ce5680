import { viewOf } from "../../base/bytes.js";
import { ceilDiv } from "../../base/integers.js";
import type { Storage } from "../../storage/storage.js";
import type { ClusterRuns, PlannedReftable } from "./create-allocation.js";
import type { ImageLayout, MappedRun } from "./create-layout.js";
import { entryHigh, entryLow } from "./entries.js";
import type { Qcow2Geometry } from "./geometry.js";
import { TABLE_ENTRY_BYTES } from "./limits.js";
import { setRefcount } from "./refcount-entries.js";

/** Writes the tables of a planned image; the header is not among them. One cluster of memory at a time, and the L1 table. */
export async function writeTables(storage: Storage, layout: ImageLayout, geometry: Qcow2Geometry): Promise<void> {
  const { plan } = layout;
  for (const table of plan.outgrownTables) await writeReftable(storage, table, geometry);
  await writeReftable(storage, plan.reftable, geometry);
  for (const [index, cluster] of plan.reftable.blocks) {
    await storage.write(cluster * geometry.clusterSize, refcountBlock(plan.used, index, geometry));
  }
  await writeL2Tables(storage, layout, geometry);
  await writeL1Table(storage, layout, geometry);
}

async function writeReftable(storage: Storage, table: PlannedReftable, geometry: Qcow2Geometry): Promise<void> {
  const bytes = new Uint8Array(table.clusters * geometry.clusterSize);
  for (const [index, cluster] of table.blocks) putEntry(viewOf(bytes), index, cluster * geometry.clusterSize, false);
  await storage.write(table.cluster * geometry.clusterSize, bytes);
}

/** `size`: bytes per entry; the map of subclusters in a longer one stays empty, which makes its cluster preallocated. */
function putEntry(view: DataView, index: number, offset: number, copied: boolean, size = TABLE_ENTRY_BYTES): void {
  view.setUint32(index * size, entryHigh(offset, copied));
  view.setUint32(index * size + 4, entryLow(offset, false));
}

/** Refcount block `index`: 1 for each used cluster it covers. */
function refcountBlock(used: ClusterRuns, index: number, geometry: Qcow2Geometry): Uint8Array {
  const { refcountsPerBlock, refcountOrder } = geometry;
  const block = new Uint8Array(geometry.clusterSize);
  const first = index * refcountsPerBlock;
  const end = first + refcountsPerBlock;
  for (let at = first; at < end; ) {
    const run = used.runAfter(at);
    if (run === undefined || run.start >= end) break;
    const runEnd = Math.min(run.end, end);
    for (let cluster = Math.max(run.start, at); cluster < runEnd; cluster++)
      setRefcount(block, cluster - first, refcountOrder, 1);
    at = runEnd;
  }
  return block;
}

async function writeL1Table(storage: Storage, layout: ImageLayout, geometry: Qcow2Geometry): Promise<void> {
  if (layout.l1Cluster === 0) return;
  const bytes = new Uint8Array(geometry.l1EntriesNeeded * TABLE_ENTRY_BYTES);
  layout.l2Clusters.forEach((cluster, index) => putEntry(viewOf(bytes), index, cluster * geometry.clusterSize, true));
  await storage.write(layout.l1Cluster * geometry.clusterSize, bytes);
}

async function writeL2Tables(storage: Storage, layout: ImageLayout, geometry: Qcow2Geometry): Promise<void> {
  const { l2Entries, l2EntrySize, clusterSize } = geometry;
  const runs = new RunCursor(layout.mapped);
  const total = ceilDiv(geometry.size, clusterSize);
  for (const [index, cluster] of layout.l2Clusters.entries()) {
    const table = new Uint8Array(clusterSize);
    const first = index * l2Entries;
    for (let guest = first; guest < Math.min(first + l2Entries, total); guest++) {
      putEntry(viewOf(table), guest - first, runs.hostOf(guest) * clusterSize, true, l2EntrySize);
    }
    await storage.write(cluster * clusterSize, table);
  }
}

/** Looks up ascending guest clusters in runs that cover them in order. */
class RunCursor {
  readonly #runs: readonly MappedRun[];
  #at = 0;

  constructor(runs: readonly MappedRun[]) {
    this.#runs = runs;
  }

  hostOf(guest: number): number {
    let run = this.#runs[this.#at] as MappedRun;
    while (guest >= run.guest + run.count) run = this.#runs[++this.#at] as MappedRun;
    return run.host + (guest - run.guest);
  }
}
