import { viewOf } from "../../../base/bytes.js";
import { ZcowError } from "../../../base/errors.js";
import { alignUp, ceilDiv } from "../../../base/integers.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { SECTOR_SIZE } from "../../../base/units.js";
import type { Storage } from "../../../storage/storage.js";
import type { Preallocation } from "../create-layout.js";
import { entryHigh, entryLow } from "../entries.js";
import { MAX_L1_BYTES, TABLE_ENTRY_BYTES } from "../limits.js";
import { activeL1, replaceActiveL1 } from "../snapshots/mapping-rewrite.js";
import type { ImageAtRest } from "./image-at-rest.js";
import { switchTables } from "./switch-header.js";
import { tableOf, visitReferences } from "./table-references.js";

/** Second word of an extended L2 entry whose subclusters are all allocated. */
const ALL_ALLOCATED = 0xffff_ffff;

/**
 * Checks that a qcow2 disk can get `size` bytes. Throws `INVALID_ARGUMENT`, `NOT_SUPPORTED`, `BITMAPS_IN_THE_WAY`, `FILE_TOO_LARGE`.
 */
export function requireResizable(
  { header, geometry, storage }: ImageAtRest,
  size: number,
  preallocation: Preallocation,
): void {
  const data = { path: storage.name, value: size };
  if (size % SECTOR_SIZE !== 0) {
    throw new ZcowError("INVALID_ARGUMENT", `The new size ${size} is not a multiple of ${SECTOR_SIZE}`, {
      data: { ...data, limit: SECTOR_SIZE },
      stockText: "The new size must be a multiple of 512",
    });
  }
  if (header.zoned !== undefined) {
    throw new ZcowError(
      "NOT_SUPPORTED",
      `${storage.name} is zoned: its size follows from its zones and cannot change`,
      { data },
    );
  }
  if (header.snapshotCount > 0 && header.version === 2) {
    throw new ZcowError(
      "NOT_SUPPORTED",
      `${storage.name} has version 2 and ${header.snapshotCount} snapshots, which do not say how large their disk is; amend it to compat=1.1 first`,
      { data, stockText: "Can't resize a v2 image which has snapshots" },
    );
  }
  if (header.bitmaps !== undefined) {
    throw new ZcowError(
      "BITMAPS_IN_THE_WAY",
      `${storage.name} has ${header.bitmaps.count} bitmaps of the size it has now`,
      { data },
    );
  }
  if (geometry.externalData && preallocation !== "off") {
    const message = `${storage.name} keeps its data in an external file, in which nothing can be allocated beforehand here`;
    throw new ZcowError("NOT_SUPPORTED", message, { data });
  }
  if (header.cryptMethod !== 0 && preallocation !== "off") {
    const message = `${storage.name} is encrypted: clusters that were allocated beforehand would not read as zeros`;
    throw new ZcowError("NOT_SUPPORTED", message, { data });
  }
  const limit = (MAX_L1_BYTES / TABLE_ENTRY_BYTES) * geometry.l2Coverage;
  if (size <= limit) return;
  throw new ZcowError(
    "FILE_TOO_LARGE",
    `A disk of ${size} bytes is above ${limit}, the largest with clusters of ${geometry.clusterSize} bytes`,
    { data: { ...data, limit }, stockText: "Failed to grow the L1 table: File too large" },
  );
}

/**
 * Makes the disk larger; the new part reads as zeros. A crash leaves the old size or the new one. With `preallocation` every new
 * cluster gets its place: `falloc` and `full` also take the space on the host.
 */
export async function growDisk(image: ImageAtRest, size: number, preallocation: Preallocation): Promise<void> {
  const { geometry, storage, header, l1 } = image;
  const entries = ceilDiv(size, geometry.l2Coverage);
  if (preallocation === "off" && entries <= l1.entries) {
    await switchTables(storage, { ...header, size });
    return;
  }
  const bytes = new Uint8Array(Math.max(entries, l1.entries) * TABLE_ENTRY_BYTES);
  bytes.set(activeL1(image));
  const end = preallocation === "off" ? 0 : await preallocate(image, bytes, size, preallocation);
  const table = await replaceActiveL1(image, bytes);
  if (end > storage.size()) {
    const wait = storage.truncate(end);
    if (isPromise(wait)) await wait;
  }
  await image.commit({ ...table, size });
}

/** Maps every cluster past the old end that is not mapped. Returns the end of the data in the file. */
async function preallocate(image: ImageAtRest, l1: Uint8Array, size: number, mode: Preallocation): Promise<number> {
  const { geometry, header } = image;
  const { clusterSize, l2Entries } = geometry;
  const last = ceilDiv(size, clusterSize);
  let end = 0;
  for (let cluster = Math.floor(header.size / clusterSize); cluster < last; ) {
    const index = Math.floor(cluster / l2Entries);
    const past = Math.min(last, (index + 1) * l2Entries);
    end = Math.max(end, await fillTable(image, l1, index, cluster - index * l2Entries, past - index * l2Entries, mode));
    cluster = past;
  }
  return end;
}

/** Maps the empty entries [from, to) of L2 table `index`, which moves to another place. */
async function fillTable(
  image: ImageAtRest,
  l1: Uint8Array,
  index: number,
  from: number,
  to: number,
  mode: Preallocation,
): Promise<number> {
  const { geometry, counts, storage } = image;
  const { clusterSize, l2EntrySize } = geometry;
  const old = tableOf(viewOf(l1), index, geometry, storage.size());
  const table = old === 0 ? new Uint8Array(clusterSize) : await image.read(old, clusterSize);
  const view = viewOf(table);
  const empty: number[] = [];
  for (let entry = from; entry < to; entry++) {
    const at = entry * l2EntrySize;
    if ((view.getUint32(at) | view.getUint32(at + 4)) === 0) empty.push(at);
  }
  const oldEnd = storage.size();
  const first = empty.length === 0 ? 0 : await counts.allocate(empty.length);
  for (const [i, at] of empty.entries()) {
    const host = (first + i) * clusterSize;
    view.setUint32(at, entryHigh(host, true));
    view.setUint32(at + 4, entryLow(host, false));
    if (l2EntrySize === 16) view.setUint32(at + 12, ALL_ALLOCATED);
  }
  const end = (first + empty.length) * clusterSize;
  await takeSpace(storage, first * clusterSize, end, oldEnd, mode);
  const place = await image.place(table);
  if (old !== 0) await counts.add(old / clusterSize, 1, -1);
  viewOf(l1).setUint32(index * TABLE_ENTRY_BYTES, entryHigh(place, true));
  viewOf(l1).setUint32(index * TABLE_ENTRY_BYTES + 4, entryLow(place, false));
  return end;
}

/** Zeros in what the file had before; past its old end it is a hole, unless space is to be taken. */
async function takeSpace(
  storage: Storage,
  from: number,
  to: number,
  oldEnd: number,
  mode: Preallocation,
): Promise<void> {
  const end = mode === "metadata" ? Math.min(to, oldEnd) : to;
  if (end <= from) return;
  const wait = storage.writeZeroes(from, end - from, { unmap: mode === "metadata" });
  if (isPromise(wait)) await wait;
}

/**
 * Makes the disk smaller. What lies past the new end is dropped from the tables; its clusters were given back before, as far as
 * that was possible. Tables that only snapshots use then stay theirs. The file is cut behind its last used cluster.
 */
export async function shrinkDisk(image: ImageAtRest, size: number): Promise<void> {
  const { geometry, storage, counts } = image;
  const { clusterSize, l2Entries } = geometry;
  const old = activeL1(image);
  const entries = ceilDiv(size, geometry.l2Coverage);
  const kept = ceilDiv(size, clusterSize);
  const visit = (first: number, count: number): ReturnType<typeof counts.add> => counts.add(first, count, -1);
  for (let index = Math.max(0, entries - 1); index < old.length / TABLE_ENTRY_BYTES; index++) {
    const table = tableOf(viewOf(old), index, geometry, storage.size());
    if (table === 0) continue;
    const bytes = await image.read(table, clusterSize);
    if (index >= entries) {
      await visitReferences(bytes, geometry, visit);
      const wait = counts.add(table / clusterSize, 1, -1);
      if (isPromise(wait)) await wait;
      continue;
    }
    const rest = bytes.subarray(Math.min(clusterSize, (kept - index * l2Entries) * geometry.l2EntrySize));
    if (rest.every((byte) => byte === 0)) continue;
    await visitReferences(rest, geometry, visit);
    rest.fill(0);
    const place = await image.place(bytes);
    const wait = counts.add(table / clusterSize, 1, -1);
    if (isPromise(wait)) await wait;
    viewOf(old).setUint32(index * TABLE_ENTRY_BYTES, entryHigh(place, true));
    viewOf(old).setUint32(index * TABLE_ENTRY_BYTES + 4, entryLow(place, false));
  }
  const table = await replaceActiveL1(image, old.slice(0, entries * TABLE_ENTRY_BYTES));
  await image.commit({ ...table, size });
  await cutFile(image);
}

/** Free clusters at the end of the file are of no use to anybody. */
async function cutFile({ storage, counts, geometry }: ImageAtRest): Promise<void> {
  if (!storage.capabilities.resizable) return;
  const last = await counts.lastUsed(ceilDiv(storage.size(), geometry.clusterSize));
  const end = alignUp((last + 1) * geometry.clusterSize, geometry.clusterSize);
  if (end >= storage.size()) return;
  const wait = storage.truncate(end);
  if (isPromise(wait)) await wait;
}
