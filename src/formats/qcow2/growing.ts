import { alignDown, alignUp, ceilDiv } from "../../base/integers.js";
import { SECTOR_SIZE } from "../../base/units.js";
import type { BlockExtent } from "../../block/block-device.js";
import { isUnmapped } from "./allocating-now.js";
import { acquireForEdit, linkClusters, writeAllocating } from "./allocating-write.js";
import type { ImageBitmaps } from "./bitmaps/image-bitmaps.js";
import { imageExtents } from "./extents.js";
import { AUTOCLEAR } from "./features.js";
import type { ImageState } from "./image-state.js";
import { TABLE_ENTRY_BYTES } from "./limits.js";
import { OWNER_L1 } from "./overlap.js";
import { requireResizable } from "./rewrite/resize-disk.js";
import { RunReader } from "./run-reader.js";
import { writeZeroes } from "./zeroing.js";

/**
 * Makes the disk of an open image larger, while others use it.
 *
 *     step                                              | a crash in this step leaves the old size, and
 *     --------------------------------------------------+------------------------------------------------------------------
 *     bitmaps marked `in use`, as before any write      | inconsistent bitmaps
 *     an external data file made longer                 | a longer data file
 *     a longer L1 table: counted, durable; written,     | a leak
 *     durable; the header that names it, durable        | the L1 table, old or new, with the same entries
 *     what would show behind the old end made zeros:    | entries behind the end of the disk, where nobody looks
 *     counts, data and tables durable                   |
 *     the size in the header, durable                   | or the new size
 *
 * Requests go on in between, with the old size: what they leave in the last cluster behind the end are zeros, or old contents that
 * are replaced under their reservation. Only those that take the end of the disk for the end of a cluster are waited for.
 */

/** Throws `NOT_SUPPORTED`, `FILE_TOO_LARGE`, `INVALID_ARGUMENT`, `BITMAP_INCONSISTENT` when the disk cannot get `size` bytes. */
export function requireGrowable(state: ImageState, bitmaps: ImageBitmaps | undefined, size: number): void {
  const { storage, geometry, header } = state;
  requireResizable({ storage, geometry, header: header.current }, size);
  bitmaps?.requireUsable();
}

/**
 * Makes the disk `size` bytes long; what is new reads as zeros. Durable when it resolves. When it fails the disk has its old size.
 * One call at a time. Fails as `requireGrowable`, with `NO_SPACE`, and with the codes of the storage.
 */
export async function growDisk(state: ImageState, bitmaps: ImageBitmaps | undefined, size: number): Promise<void> {
  const { data, header } = state;
  const old = state.size;
  try {
    state.end = Number.POSITIVE_INFINITY;
    await state.erasures.settled();
    await makeRoom(state, size);
    await lengthenL1(state, ceilDiv(size, state.geometry.l2Coverage));
    await clear(state, old, size);
    if ((header.current.features.autoclear & AUTOCLEAR.rawExternalData) !== 0n) await mapAll(state, old, size);
    await state.writeBack.flush(true);
    await header.update((current) => ({ ...current, size }));
  } catch (error) {
    state.end = old;
    data.setEnd(old);
    await settleHeader(state);
    throw error;
  }
  state.size = size;
  state.end = size;
  bitmaps?.grow(size);
}

async function makeRoom({ data, writeBack }: ImageState, size: number): Promise<void> {
  if (data.inImage) return;
  await data.makeRoom(size);
  data.setEnd(size);
  writeBack.unflushedData = true;
}

/** After a failure the file may have the header that was to be. Every write-back puts that right; best do it now. */
async function settleHeader({ header }: ImageState): Promise<void> {
  if (header.isUncertain) await header.restore().catch(() => undefined);
}

/** Gives the L1 table `entries`: in the clusters that it has, or in new ones. */
async function lengthenL1(state: ImageState, entries: number): Promise<void> {
  const { geometry, allocator, tables, frees, storage } = state;
  const { l1 } = state.map;
  if (entries <= l1.entries) return;
  const has = ceilDiv(l1.entries * TABLE_ENTRY_BYTES, geometry.clusterSize);
  const needs = ceilDiv(entries * TABLE_ENTRY_BYTES, geometry.clusterSize);
  if (needs === has) return tables.holdingL1(() => replaceL1(state, l1.at, entries));
  const old = l1.at;
  storage.debug?.event("l1_grow.alloc_table");
  const { offset } = await allocator.allocate(needs, true);
  try {
    await tables.holdingL1(() => replaceL1(state, offset, entries));
  } catch (error) {
    // Nobody gets the clusters before the header in the file is the old one for certain.
    await settleHeader(state);
    await allocator.release(offset, needs).catch(() => undefined);
    throw error;
  }
  if (has > 0) frees.add(old, has * geometry.clusterSize);
}

/** Nobody changes the table meanwhile. */
async function replaceL1(
  { storage, writeBack, header, owners, map }: ImageState,
  at: number,
  entries: number,
): Promise<void> {
  const { l1 } = map;
  // The counts of new clusters, and all entries: those that wait for their tables must not be in the new one, nor be kept for the old one.
  await writeBack.flush(true);
  const bytes = l1.lengthened(entries);
  // Entries in use are written where they are, as they are; what the file has behind them may be anything.
  const from = at === l1.at ? alignDown(l1.entries * TABLE_ENTRY_BYTES, SECTOR_SIZE) : 0;
  storage.debug?.event("l1_grow.write_table");
  await storage.write(at + from, bytes.subarray(from));
  await writeBack.barrier();
  storage.debug?.event("l1_grow.activate_table");
  await header.update((current) => ({ ...current, l1TableOffset: at, l1Size: entries }));
  owners.release(OWNER_L1, l1.at, l1.entries * TABLE_ENTRY_BYTES);
  l1.moveTo(at, bytes, entries);
  owners.claim(OWNER_L1, at, entries * TABLE_ENTRY_BYTES);
}

/**
 * Makes what is behind the end of the disk, from guest offset `from` to `to`, read as zeros: where the backing image is longer, where an
 * earlier attempt or the state of a machine left something, and in the rest of the last cluster.
 */
async function clear(state: ImageState, from: number, to: number): Promise<void> {
  const { clusterSize } = state.geometry;
  const backed = alignUp(state.old.backing?.size ?? 0, clusterSize);
  const lastCluster = alignUp(from, clusterSize);
  const reader = new RunReader(state);
  const shows = async ({ offset, length, kind }: BlockExtent): Promise<boolean> => {
    if (kind === "unallocated" || offset >= lastCluster) return true;
    const bytes = new Uint8Array(Math.min(length, lastCluster - offset));
    await reader.read(offset, bytes);
    return bytes.some((byte) => byte !== 0) || length > bytes.length;
  };
  for await (const extent of imageExtents(state, from, alignUp(to, clusterSize) - from)) {
    if (extent.zero || !(await shows(extent))) continue;
    const { offset, length, kind } = extent;
    const end = kind === "unallocated" ? Math.min(offset + length, backed) : offset + length;
    await writeZeroes(state, offset, end - offset, true, (at, zeros) => writeAllocating(state, at, zeros));
  }
}

/** A raw data file is a disk by itself: all that is in it shows, so every cluster from `from` to `to` is mapped. */
async function mapAll(state: ImageState, from: number, to: number): Promise<void> {
  const { map, tables, geometry } = state;
  const { clusterSize, subclusters } = geometry;
  const past = ceilDiv(to, clusterSize);
  for (let cluster = ceilDiv(from, clusterSize); cluster < past; ) {
    const end = Math.min(past, cluster + map.clustersToSliceEnd(cluster));
    await tables.writable(map.l1Index(cluster));
    const slice = await acquireForEdit(state, cluster);
    for (; cluster < end; cluster++) {
      if (!isUnmapped(state, slice, cluster, 1)) continue;
      const [first, host] = [cluster * subclusters, cluster * clusterSize];
      linkClusters(state, slice, { first, count: subclusters, host, allocated: false, rest: "zero" });
    }
    map.cache.release(slice);
  }
}
