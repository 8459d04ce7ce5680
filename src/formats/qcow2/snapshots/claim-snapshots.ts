import type { Storage } from "../../../storage/storage.js";
import type { Qcow2Header } from "../header.js";
import { TABLE_ENTRY_BYTES } from "../limits.js";
import { type MetadataOwners, OWNER_INACTIVE_L1, OWNER_SNAPSHOT_TABLE } from "../overlap.js";
import { snapshotL1 } from "./snapshot-lookup.js";
import { readSnapshotTable } from "./snapshot-table.js";

/**
 * Tells the overlap check where the snapshot table and the L1 tables of snapshots lie. Their L2 tables are protected by
 * their counts alone, as in the stock tools: there may be any number of them. Throws `QCOW2_SNAPSHOT_TABLE`, `QCOW2_SNAPSHOT_L1`.
 */
export async function claimSnapshots(storage: Storage, header: Qcow2Header, owners: MetadataOwners): Promise<void> {
  const { snapshots, length } = await readSnapshotTable(storage, header);
  owners.claim(OWNER_SNAPSHOT_TABLE, header.snapshotsOffset, length);
  for (const snapshot of snapshots) {
    const { offset, entries } = snapshotL1(snapshot, header);
    owners.claim(OWNER_INACTIVE_L1, offset, entries * TABLE_ENTRY_BYTES);
  }
}
