import { ZcowError } from "../../../base/errors.js";
import type { Storage } from "../../../storage/storage.js";
import type { Qcow2Header } from "../header.js";
import { TABLE_ENTRY_BYTES } from "../limits.js";
import { type MetadataOwners, OWNER_INACTIVE_L1, OWNER_SNAPSHOT_TABLE } from "../overlap.js";
import { snapshotL1 } from "./snapshot-lookup.js";
import { readSnapshotTable } from "./snapshot-table.js";

/**
 * L1 entries of all snapshots together whose places are remembered: a thousand snapshots of a 32 TiB disk with 64 KiB clusters.
 * More is what a hostile table of 2 MiB can claim, at nine bytes of memory for each cluster.
 */
const MAX_CLAIMED_ENTRIES = 2 ** 26;

/**
 * Tells the overlap check where the snapshot table and the L1 tables of snapshots lie. Their L2 tables are protected by
 * their counts alone, as in the stock tools: there may be any number of them. Throws `QCOW2_SNAPSHOT_TABLE`, `QCOW2_SNAPSHOT_L1`, `SNAPSHOT_LIMIT`.
 */
export async function claimSnapshots(storage: Storage, header: Qcow2Header, owners: MetadataOwners): Promise<void> {
  const { snapshots, length } = await readSnapshotTable(storage, header);
  owners.claim(OWNER_SNAPSHOT_TABLE, header.snapshotsOffset, length);
  let total = 0;
  for (const snapshot of snapshots) {
    const { offset, entries } = snapshotL1(snapshot, header);
    total += entries;
    if (total > MAX_CLAIMED_ENTRIES) throw tooManyEntries(storage);
    owners.claim(OWNER_INACTIVE_L1, offset, entries * TABLE_ENTRY_BYTES);
  }
}

function tooManyEntries(storage: Storage): ZcowError {
  return new ZcowError(
    "SNAPSHOT_LIMIT",
    `${storage.name}: the L1 tables of its snapshots have more than ${MAX_CLAIMED_ENTRIES} entries together, so it can be read only`,
    { data: { structure: "snapshot table", path: storage.name, limit: MAX_CLAIMED_ENTRIES } },
  );
}
