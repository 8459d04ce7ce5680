import { isPromise } from "../../../base/maybe-promise.js";
import { TABLE_ENTRY_BYTES } from "../limits.js";
import type { ImageAtRest } from "../rewrite/image-at-rest.js";
import { activeL1, countTree, readSnapshotL1, replaceActiveL1, settleTree } from "./mapping-rewrite.js";
import type { Snapshot } from "./snapshot.js";
import { snapshotL1 } from "./snapshot-lookup.js";
import { replaceSnapshotTable } from "./table-rewrite.js";

/**
 * Removes a snapshot, and frees what only it used. `snapshot` is one of the image's own. Throws `QCOW2_SNAPSHOT_L1`, `IMAGE_CORRUPT`, and
 * the codes of the storage; the image is unchanged then.
 */
export async function deleteSnapshot(image: ImageAtRest, snapshot: Snapshot): Promise<void> {
  const place = snapshotL1(snapshot, image.header);
  await countTree(image, await readSnapshotL1(image, place), -1);
  const wait = image.drop(place.offset, place.entries * TABLE_ENTRY_BYTES);
  if (isPromise(wait)) await wait;
  const rest = image.snapshots.snapshots.filter((other) => other !== snapshot);
  const table = await replaceSnapshotTable(image, rest);
  // What the disk shared with nobody else may be written in place again.
  const l1 = activeL1(image);
  const changed = await settleTree(image, l1);
  await image.commit(changed ? { ...table, ...(await replaceActiveL1(image, l1)) } : table);
}
