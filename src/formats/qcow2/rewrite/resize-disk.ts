import { viewOf } from "../../../base/bytes.js";
import { ZcowError } from "../../../base/errors.js";
import { alignUp, ceilDiv } from "../../../base/integers.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { SECTOR_SIZE } from "../../../base/units.js";
import { entryHigh, entryLow } from "../entries.js";
import { MAX_L1_BYTES, TABLE_ENTRY_BYTES } from "../limits.js";
import { activeL1, replaceActiveL1 } from "../snapshots/mapping-rewrite.js";
import type { ImageAtRest } from "./image-at-rest.js";
import { tableOf, visitReferences } from "./table-references.js";

/** What tells whether a disk can have another size. */
type Resizable = Pick<ImageAtRest, "header" | "geometry" | "storage">;

/**
 * Checks that a qcow2 disk can get `size` bytes. Throws `INVALID_ARGUMENT`, `NOT_SUPPORTED`, `FILE_TOO_LARGE`.
 */
export function requireResizable({ header, geometry, storage }: Resizable, size: number): void {
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
  const limit = (MAX_L1_BYTES / TABLE_ENTRY_BYTES) * geometry.l2Coverage;
  if (size <= limit) return;
  throw new ZcowError(
    "FILE_TOO_LARGE",
    `A disk of ${size} bytes is above ${limit}, the largest with clusters of ${geometry.clusterSize} bytes`,
    { data: { ...data, limit }, stockText: "Failed to grow the L1 table: File too large" },
  );
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
export async function cutFile({ storage, counts, geometry }: ImageAtRest): Promise<void> {
  if (!storage.capabilities.resizable || storage.capabilities.growsOnly === true) return;
  const last = await counts.lastUsed(ceilDiv(storage.size(), geometry.clusterSize));
  const end = alignUp((last + 1) * geometry.clusterSize, geometry.clusterSize);
  if (end >= storage.size()) return;
  const wait = storage.truncate(end);
  if (isPromise(wait)) await wait;
}
