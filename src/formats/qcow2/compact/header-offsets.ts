import { viewOf, writeU64 } from "../../../base/bytes.js";
import { alignDown, alignUp } from "../../../base/integers.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { SECTOR_SIZE } from "../../../base/units.js";
import type { Storage } from "../../../storage/storage.js";
import { EXTENSION, extensionRecords } from "../extensions.js";
import type { Qcow2Header } from "../header.js";
import { FIELD } from "../header-fields.js";
import { setStoredField } from "../zoned-layouts.js";

/** File offsets that the header stores. */
export interface HeaderOffsets {
  readonly l1TableOffset: number;
  readonly refcountTableOffset: number;
  readonly snapshotsOffset: number;
  readonly cryptHeader: number | undefined;
  readonly bitmaps: number | undefined;
  readonly writePointers: number | undefined;
}

/** Offset of the bitmap directory's offset in its extension. */
const BITMAPS_OFFSET_AT = 16;

/**
 * Stores the offsets that differ, and leaves every other byte of the header where it is. Each offset lies in one sector, so that a
 * crash leaves each of them old or new.
 */
export async function patchHeader(storage: Storage, header: Qcow2Header, offsets: HeaderOffsets): Promise<void> {
  const clusterSize = 2 ** header.clusterBits;
  const bytes = new Uint8Array(clusterSize);
  const read = storage.read(0, bytes);
  if (isPromise(read)) await read;
  const before = bytes.slice();
  const view = viewOf(bytes);
  writeU64(view, FIELD.l1TableOffset, offsets.l1TableOffset);
  writeU64(view, FIELD.refcountTableOffset, offsets.refcountTableOffset);
  writeU64(view, FIELD.snapshotsOffset, offsets.snapshotsOffset);
  const nameAt = Number(view.getBigUint64(FIELD.backingFileOffset));
  for (const { type, data } of extensionRecords(bytes, header.headerLength, nameAt === 0 ? clusterSize : nameAt)) {
    patchExtension(type, data, header, offsets);
  }
  await writeChanged(storage, before, bytes);
}

function patchExtension(type: number, data: Uint8Array, header: Qcow2Header, offsets: HeaderOffsets): void {
  const { cryptHeader, bitmaps, writePointers } = offsets;
  if (type === EXTENSION.cryptHeader && cryptHeader !== undefined) writeU64(viewOf(data), 0, cryptHeader);
  if (type === EXTENSION.bitmaps && bitmaps !== undefined) writeU64(viewOf(data), BITMAPS_OFFSET_AT, bitmaps);
  if (type === EXTENSION.zoned && writePointers !== undefined && header.zoned !== undefined) {
    setStoredField(data, header.zoned.layout, "tableOffset", writePointers);
  }
}

/** Writes the sectors between the first and the last byte that differ. */
async function writeChanged(storage: Storage, before: Uint8Array, after: Uint8Array): Promise<void> {
  const unit = Math.max(SECTOR_SIZE, storage.capabilities.alignment);
  const first = after.findIndex((byte, at) => byte !== before[at]);
  if (first === -1) return;
  const last = after.findLastIndex((byte, at) => byte !== before[at]);
  const from = alignDown(first, unit);
  const wait = storage.write(from, after.subarray(from, Math.min(after.length, alignUp(last + 1, unit))));
  if (isPromise(wait)) await wait;
}
