import { isPromise } from "../../../base/maybe-promise.js";
import type { ImageAtRest } from "../rewrite/image-at-rest.js";
import type { Snapshot } from "./snapshot.js";
import { encodeSnapshotTable } from "./snapshot-table.js";

/** Writes a new snapshot table and drops the old one. Returns the header fields that name it. */
export async function replaceSnapshotTable(
  image: ImageAtRest,
  snapshots: readonly Snapshot[],
): Promise<{ readonly snapshotCount: number; readonly snapshotsOffset: number }> {
  const snapshotsOffset = await image.place(encodeSnapshotTable(snapshots, image.header.size));
  const wait = image.drop(image.header.snapshotsOffset, image.snapshots.length);
  if (isPromise(wait)) await wait;
  return { snapshotCount: snapshots.length, snapshotsOffset };
}
