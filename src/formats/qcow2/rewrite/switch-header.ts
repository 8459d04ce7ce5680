import { viewOf, writeU64 } from "../../../base/bytes.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { SECTOR_SIZE } from "../../../base/units.js";
import type { Storage } from "../../../storage/storage.js";
import type { Qcow2Header } from "../header.js";
import { FIELD } from "../header-fields.js";

/**
 * Makes the tables that `header` names the ones in force, durably; what they consist of is durable before. Only the fixed fields are
 * written. They lie in the first sector, which a disk writes whole or not at all: a crash leaves the old image or the new one.
 */
export async function switchTables(storage: Storage, header: Qcow2Header): Promise<void> {
  await flush(storage);
  const sector = new Uint8Array(Math.max(SECTOR_SIZE, storage.capabilities.alignment));
  const read = storage.read(0, sector);
  if (isPromise(read)) await read;
  setTables(viewOf(sector), header);
  const written = storage.write(0, sector);
  if (isPromise(written)) await written;
  await flush(storage);
}

function setTables(view: DataView, header: Qcow2Header): void {
  writeU64(view, FIELD.size, header.size);
  view.setUint32(FIELD.l1Size, header.l1Size);
  writeU64(view, FIELD.l1TableOffset, header.l1TableOffset);
  writeU64(view, FIELD.refcountTableOffset, header.refcountTableOffset);
  view.setUint32(FIELD.refcountTableClusters, header.refcountTableClusters);
  view.setUint32(FIELD.snapshotCount, header.snapshotCount);
  writeU64(view, FIELD.snapshotsOffset, header.snapshotsOffset);
  if (header.version === 2) return;
  view.setBigUint64(FIELD.compatible, header.features.compatible);
  view.setBigUint64(FIELD.autoclear, header.features.autoclear);
  view.setUint32(FIELD.refcountOrder, header.refcountOrder);
}

async function flush(storage: Storage): Promise<void> {
  const wait = storage.flush();
  if (isPromise(wait)) await wait;
}
