import { ZcowError } from "../../../base/errors.js";
import type { Qcow2Header } from "../header.js";
import { MAX_L1_BYTES, TABLE_ENTRY_BYTES } from "../limits.js";
import type { Snapshot } from "./snapshot.js";

/** How the stock tools look a snapshot up: to apply or read one by id first, then by name; to delete one by name alone. */
export type SnapshotKey = "id-or-name" | "name";

/** The snapshot called `wanted`; the first one when several have the name. Throws `SNAPSHOT_NOT_FOUND`. */
export function findSnapshot(
  snapshots: readonly Snapshot[],
  wanted: string,
  key: SnapshotKey,
  image: string,
): Snapshot {
  const byId = key === "name" ? undefined : snapshots.find(({ id }) => id === wanted);
  const found = byId ?? snapshots.find(({ name }) => name === wanted);
  if (found !== undefined) return found;
  throw new ZcowError(
    "SNAPSHOT_NOT_FOUND",
    `${image} has no snapshot '${wanted}' (${snapshots.length} snapshots; looked up by ${key === "name" ? "name" : "id, then name"})`,
    {
      data: { path: image, structure: "snapshot table", value: wanted },
      stockText: key === "name" ? "snapshot not found" : "Can't find snapshot",
    },
  );
}

/** The id of a new snapshot: one more than the largest number that an id starts with. */
export function newSnapshotId(snapshots: readonly Snapshot[]): string {
  const numbers = snapshots.map(({ id }) => BigInt(/^\s*\+?(\d+)/.exec(id)?.[1] ?? "0"));
  return String(numbers.reduce((largest, number) => (number > largest ? number : largest), 0n) + 1n);
}

/** Where the L1 table of a snapshot lies, checked. */
export interface SnapshotL1 {
  /** File offset. */
  readonly offset: number;
  readonly entries: number;
}

/** Throws `QCOW2_SNAPSHOT_L1` for a table that is misaligned, above 2^53, or larger than 32 MiB. */
export function snapshotL1(snapshot: Snapshot, header: Pick<Qcow2Header, "clusterBits">): SnapshotL1 {
  const { id, name, l1Offset, l1Entries } = snapshot;
  const limit = MAX_L1_BYTES / TABLE_ENTRY_BYTES;
  const subject = `Snapshot ${id} (${name})`;
  const data = { structure: `snapshot ${id}` };
  if (l1Entries > limit) {
    throw new ZcowError(
      "QCOW2_SNAPSHOT_L1",
      `${subject}: its L1 table has ${l1Entries} entries, above the limit of ${limit}`,
      {
        data: { ...data, field: "l1_size", value: l1Entries, limit, errno: "EFBIG" },
        stockText: "Snapshot L1 table too large",
      },
    );
  }
  const clusterSize = 2 ** header.clusterBits;
  if (l1Offset % BigInt(clusterSize) !== 0n || l1Offset > BigInt(Number.MAX_SAFE_INTEGER - MAX_L1_BYTES)) {
    throw new ZcowError(
      "QCOW2_SNAPSHOT_L1",
      `${subject}: its L1 table offset 0x${l1Offset.toString(16)} is not a multiple of the cluster size ${clusterSize} below 2^53`,
      {
        data: { ...data, field: "l1_table_offset", value: l1Offset, limit: clusterSize },
        stockText: "Snapshot L1 table offset invalid",
      },
    );
  }
  return { offset: Number(l1Offset), entries: l1Entries };
}
