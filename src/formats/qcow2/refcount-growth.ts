import { ZcowError } from "../../base/errors.js";
import type { Storage } from "../../storage/storage.js";
import { entryHigh, entryLow } from "./entries.js";
import type { Qcow2Geometry } from "./geometry.js";
import { MAX_REFTABLE_BYTES, TABLE_ENTRY_BYTES } from "./limits.js";
import { setRefcount } from "./refcount-entries.js";
import { RootTable } from "./root-table.js";

/** Where a larger refcount table goes: [new blocks][new table], all counted by the new blocks. */
export interface GrowthPlan {
  /** First host cluster of the area. */
  readonly first: number;
  readonly blocks: number;
  readonly tableClusters: number;
  /** Index of the first new block. */
  readonly firstBlock: number;
}

/**
 * Plans a refcount table that reaches cluster `first` and beyond. `first` lies past everything the old table of
 * `entries` entries covers, so the whole area is free and only new blocks count it. The table grows by half at
 * least, so growth stays rare. Throws `FILE_TOO_LARGE` above the limit of 8 MiB.
 */
export function planGrowth(first: number, entries: number, geometry: Qcow2Geometry): GrowthPlan {
  const { refcountsPerBlock, clusterSize } = geometry;
  const perCluster = clusterSize / TABLE_ENTRY_BYTES;
  const firstBlock = Math.floor(first / refcountsPerBlock);
  let blocks = 1;
  let tableClusters = 1;
  for (;;) {
    const lastBlock = Math.floor((first + blocks + tableClusters - 1) / refcountsPerBlock);
    const neededBlocks = lastBlock - firstBlock + 1;
    const neededEntries = Math.max(lastBlock + 1, Math.ceil(entries * 1.5));
    const cappedEntries = Math.max(lastBlock + 1, Math.min(neededEntries, MAX_REFTABLE_BYTES / TABLE_ENTRY_BYTES));
    const neededClusters = Math.ceil(cappedEntries / perCluster);
    if (neededBlocks <= blocks && neededClusters <= tableClusters) break;
    blocks = Math.max(blocks, neededBlocks);
    tableClusters = Math.max(tableClusters, neededClusters);
  }
  const bytes = tableClusters * clusterSize;
  if (bytes > MAX_REFTABLE_BYTES) {
    throw new ZcowError(
      "FILE_TOO_LARGE",
      `The image cannot grow to ${first * clusterSize} bytes: its refcount table would take ${bytes} bytes, above the limit of ${MAX_REFTABLE_BYTES}`,
      { data: { structure: "refcount table", value: bytes, limit: MAX_REFTABLE_BYTES } },
    );
  }
  return { first, blocks, tableClusters, firstBlock };
}

/** Writes the new blocks and the new table, not yet durable, and returns it. Nothing refers to them; `old` must be clean. */
export async function writeGrowth(
  storage: Storage,
  plan: GrowthPlan,
  old: RootTable,
  geometry: Qcow2Geometry,
): Promise<RootTable> {
  const { clusterSize, refcountsPerBlock, refcountOrder } = geometry;
  const total = plan.blocks + plan.tableClusters;
  const tableAt = (plan.first + plan.blocks) * clusterSize;
  const table = new RootTable(tableAt, new Uint8Array(plan.tableClusters * clusterSize));
  table.bytes.set(old.bytes);
  for (let i = 0; i < plan.blocks; i++) {
    const index = plan.firstBlock + i;
    const offset = (plan.first + i) * clusterSize;
    table.view.setUint32(index * TABLE_ENTRY_BYTES, entryHigh(offset, false));
    table.view.setUint32(index * TABLE_ENTRY_BYTES + 4, entryLow(offset, false));
    const block = new Uint8Array(clusterSize);
    const covered = index * refcountsPerBlock;
    const from = Math.max(plan.first, covered);
    const to = Math.min(plan.first + total, covered + refcountsPerBlock);
    for (let cluster = from; cluster < to; cluster++) setRefcount(block, cluster - covered, refcountOrder, 1);
    storage.debug?.event("refblock_alloc.write_blocks");
    await storage.write(offset, block);
  }
  storage.debug?.event("refblock_alloc.write_table");
  await storage.write(tableAt, table.bytes);
  return table;
}
