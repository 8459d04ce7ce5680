import { ZcowError } from "../../../base/errors.js";
import { ceilDiv } from "../../../base/integers.js";
import type { Storage } from "../../../storage/storage.js";
import { INCOMPATIBLE } from "../features.js";
import { qcow2Geometry } from "../geometry.js";
import type { Qcow2Header } from "../header.js";
import { findSnapshot, snapshotL1 } from "./snapshot-lookup.js";
import { readSnapshotTable } from "./snapshot-table.js";

/**
 * The header with which the disk reads as it was when the snapshot was taken, its size included. Throws `READ_ONLY` when the disk is to be
 * written, `SNAPSHOT_NOT_FOUND`, `QCOW2_SNAPSHOT_TABLE`, and `QCOW2_SNAPSHOT_L1` for a table that does not reach to the end of the disk.
 */
export async function headerOfSnapshot(
  storage: Storage,
  header: Qcow2Header,
  wanted: string,
  writable: boolean,
): Promise<Qcow2Header> {
  if (writable) {
    throw new ZcowError("READ_ONLY", `${storage.name}: snapshot '${wanted}' can be read, not written`, {
      data: { path: storage.name, value: wanted },
    });
  }
  const { snapshots } = await readSnapshotTable(storage, header);
  const snapshot = findSnapshot(snapshots, wanted, "id-or-name", storage.name);
  const { offset, entries } = snapshotL1(snapshot, header);
  const size = snapshot.diskSize ?? BigInt(header.size);
  const { version, clusterBits, refcountOrder, features } = header;
  const extendedL2 = (features.incompatible & INCOMPATIBLE.extendedL2) !== 0n;
  const { l2Coverage } = qcow2Geometry({ size: 0, version, clusterBits, refcountOrder, extendedL2 });
  if (size > BigInt(entries * l2Coverage) || size > BigInt(Number.MAX_SAFE_INTEGER)) {
    const needed = ceilDiv(Number(size), l2Coverage);
    throw new ZcowError(
      "QCOW2_SNAPSHOT_L1",
      `Snapshot ${snapshot.id} (${snapshot.name}): its L1 table has ${entries} entries, ${needed} are needed for ${size} bytes`,
      { data: { structure: `snapshot ${snapshot.id}`, field: "l1_size", value: entries, limit: needed } },
    );
  }
  return { ...header, size: Number(size), l1Size: entries, l1TableOffset: offset };
}
