import { viewOf } from "../../../base/bytes.js";
import { ZcowError } from "../../../base/errors.js";
import { alignUp } from "../../../base/integers.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { SECTOR_SIZE } from "../../../base/units.js";
import { ClusterMap } from "../cluster-map.js";
import { entryHigh, entryLow } from "../entries.js";
import { TABLE_ENTRY_BYTES } from "../limits.js";
import type { ImageAtRest } from "../rewrite/image-at-rest.js";
import { settleCopied, tableOf, visitReferences, withCopied } from "../rewrite/table-references.js";
import type { SnapshotL1 } from "./snapshot-lookup.js";

/** Mapping trees of an image at rest: an L1 table, the L2 tables under it, and the clusters those refer to. */

/** The entries of an L1 table, in bytes. */
export async function readSnapshotL1(image: ImageAtRest, { offset, entries }: SnapshotL1): Promise<Uint8Array> {
  // Past the end of the file reads as zeros.
  return entries === 0 ? new Uint8Array(0) : image.read(offset, entries * TABLE_ENTRY_BYTES);
}

/** Adds one to, or takes one from, the counts of everything under the L1 table; not of the table itself. */
export async function countTree(image: ImageAtRest, l1: Uint8Array, delta: 1 | -1): Promise<void> {
  const { geometry, counts, storage } = image;
  const view = viewOf(l1);
  const visit = (first: number, count: number): ReturnType<typeof counts.add> => counts.add(first, count, delta);
  const seen = new ClusterMap();
  for (let index = 0; index < l1.length / TABLE_ENTRY_BYTES; index++) {
    const table = tableOf(view, index, geometry, storage.size());
    if (table === 0) continue;
    if (seen.get(table / geometry.clusterSize) !== 0) throw usedTwice(index, table);
    seen.set(table / geometry.clusterSize, 1);
    await visitReferences(await image.read(table, geometry.clusterSize), geometry, visit);
    const wait = counts.add(table / geometry.clusterSize, 1, delta);
    if (isPromise(wait)) await wait;
  }
}

/** No program makes such a tree, and a small file could make the walk read the same table millions of times. */
function usedTwice(index: number, table: number): ZcowError {
  return new ZcowError(
    "IMAGE_CORRUPT",
    `L1 entry ${index} refers to the L2 table at file offset ${table}, as another entry of the same L1 table does; check and repair the image first`,
    { data: { structure: "L1 table", field: `entry ${index}`, value: table } },
  );
}

/**
 * Makes the copied flags of an L1 table that is to be the active one, and of the L2 tables under it, say what the new counts are. An
 * L2 table whose flags change is written to another place, with its own counts unchanged. Changes `l1`; returns whether it did.
 */
export async function settleTree(image: ImageAtRest, l1: Uint8Array): Promise<boolean> {
  const { geometry, counts, storage } = image;
  const { clusterSize } = geometry;
  const view = viewOf(l1);
  let changed = false;
  for (let index = 0; index < l1.length / TABLE_ENTRY_BYTES; index++) {
    const table = tableOf(view, index, geometry, storage.size());
    if (table === 0) continue;
    const bytes = await image.read(table, clusterSize);
    const before = view.getUint32(index * TABLE_ENTRY_BYTES);
    if ((await settleCopied(bytes, geometry, (cluster) => counts.count(cluster))) > 0) {
      const offset = await image.place(bytes);
      const wait = counts.add(table / clusterSize, 1, -1);
      if (isPromise(wait)) await wait;
      setEntry(view, index, offset, true);
      changed = true;
      continue;
    }
    const found = counts.count(table / clusterSize);
    const isOnly = (isPromise(found) ? await found : found) === 1;
    if (withCopied(before, isOnly) === before) continue;
    view.setUint32(index * TABLE_ENTRY_BYTES, withCopied(before, isOnly));
    changed = true;
  }
  return changed;
}

/**
 * Makes every cluster under the L1 table shared by one more table. L2 tables that have copied flags are replaced by ones
 * without; they are as shared as the rest. Changes `l1`: no entry has its flag any more.
 */
export async function shareTree(image: ImageAtRest, l1: Uint8Array): Promise<void> {
  const { geometry, counts, storage } = image;
  const { clusterSize } = geometry;
  const view = viewOf(l1);
  for (let index = 0; index < l1.length / TABLE_ENTRY_BYTES; index++) {
    const table = tableOf(view, index, geometry, storage.size());
    if (table === 0) continue;
    const bytes = await image.read(table, clusterSize);
    await visitReferences(bytes, geometry, (first, count) => counts.add(first, count, 1));
    let place = table;
    if ((await settleCopied(bytes, geometry, () => 2)) > 0) {
      place = await image.place(bytes);
      const wait = counts.add(table / clusterSize, 1, -1);
      if (isPromise(wait)) await wait;
    }
    const wait = counts.add(place / clusterSize, 1, 1);
    if (isPromise(wait)) await wait;
    setEntry(view, index, place, false);
  }
}

function setEntry(view: DataView, index: number, offset: number, copied: boolean): void {
  view.setUint32(index * TABLE_ENTRY_BYTES, entryHigh(offset, copied));
  view.setUint32(index * TABLE_ENTRY_BYTES + 4, entryLow(offset, false));
}

/** The entries of the active L1 table, to be changed. */
export function activeL1(image: ImageAtRest): Uint8Array {
  return image.l1.bytes.slice(0, image.l1.entries * TABLE_ENTRY_BYTES);
}

/** Writes a new active L1 table and drops the old one. Returns the header fields that name it. */
export async function replaceActiveL1(
  image: ImageAtRest,
  l1: Uint8Array,
): Promise<{ readonly l1TableOffset: number; readonly l1Size: number }> {
  // Whole sectors, so that entries can be written in sectors later.
  const bytes = new Uint8Array(alignUp(l1.length, SECTOR_SIZE));
  bytes.set(l1);
  const l1TableOffset = await image.place(bytes);
  const wait = image.drop(image.l1.at, image.l1.entries * TABLE_ENTRY_BYTES);
  if (isPromise(wait)) await wait;
  return { l1TableOffset, l1Size: l1.length / TABLE_ENTRY_BYTES };
}
