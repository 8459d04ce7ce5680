import { zoneIndex } from "../../../base/units.js";
import type { Qcow2Engine } from "../engine-contract.js";
import { findSnapshot } from "../snapshots/snapshot-lookup.js";
import { readSnapshotTable } from "../snapshots/snapshot-table.js";
import { clearPending, pendingSnapshot, pointersOfSnapshot } from "../snapshots/zone-pointers.js";
import type { ZonedExtension } from "../zoned-extension.js";
import type { PointerTable } from "./pointer-table.js";

/** The write pointers kept with a snapshot, looked up by id or name. Throws `SNAPSHOT_NOT_FOUND`, `SNAPSHOT_POINTERS`. */
export async function pointersOfNamed(
  engine: Qcow2Engine,
  zoned: ZonedExtension,
  wanted: string,
): Promise<Float64Array> {
  const { storage, header, geometry } = engine;
  const { snapshots } = await readSnapshotTable(storage, header);
  return pointersOfSnapshot(
    storage,
    header,
    zoned,
    geometry,
    findSnapshot(snapshots, wanted, "id-or-name", storage.name),
  );
}

/**
 * The pointers of a snapshot that was applied, when the write-pointer table has not got them yet; undefined otherwise. A writable
 * engine brings them into the table, durably, before the mark goes: a crash in between leaves the mark.
 */
export async function appliedPointers(
  engine: Qcow2Engine,
  zoned: ZonedExtension,
  table: PointerTable,
): Promise<Float64Array | undefined> {
  const { storage, header, geometry } = engine;
  const { snapshots } = await readSnapshotTable(storage, header);
  const pending = pendingSnapshot(snapshots);
  if (pending === undefined) return undefined;
  const pointers = await pointersOfSnapshot(storage, header, zoned, geometry, pending);
  if (engine.writable) {
    await table.commit(Array.from(pointers, (pointer, zone) => [zoneIndex(zone), pointer] as const));
    await clearPending(storage, header, snapshots, pending, () => engine.barrier());
  }
  return pointers;
}
