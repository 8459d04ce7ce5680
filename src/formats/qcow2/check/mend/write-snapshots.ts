import { isPromise } from "../../../../base/maybe-promise.js";
import type { Snapshot } from "../../snapshots/snapshot.js";
import { encodeSnapshotTable } from "../../snapshots/snapshot-table.js";
import type { CheckSession } from "../check-session.js";
import type { NewClusters } from "./new-clusters.js";

/** Fields of the header for a snapshot table. */
export interface SnapshotFields {
  readonly snapshotCount: number;
  readonly snapshotsOffset: number;
}

/** Writes a snapshot table behind the end of the file; it is in force once the header names it. */
export async function writeSnapshots(
  { storage, header }: CheckSession,
  snapshots: readonly Snapshot[],
  room: NewClusters,
): Promise<SnapshotFields> {
  if (snapshots.length === 0) return { snapshotCount: 0, snapshotsOffset: 0 };
  const bytes = encodeSnapshotTable(snapshots, header.size);
  const snapshotsOffset = room.take(bytes.length);
  const wait = storage.write(snapshotsOffset, bytes);
  if (isPromise(wait)) await wait;
  return { snapshotCount: snapshots.length, snapshotsOffset };
}
