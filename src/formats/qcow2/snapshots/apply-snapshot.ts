import { ZcowError } from "../../../base/errors.js";
import { ceilDiv } from "../../../base/integers.js";
import { MAX_L1_BYTES, TABLE_ENTRY_BYTES } from "../limits.js";
import type { HeaderChange, ImageAtRest } from "../rewrite/image-at-rest.js";
import { activeL1, countTree, readSnapshotL1, replaceActiveL1, settleTree } from "./mapping-rewrite.js";
import type { Snapshot } from "./snapshot.js";
import { snapshotL1 } from "./snapshot-lookup.js";
import { replaceSnapshotTable } from "./table-rewrite.js";
import { pointersOfSnapshot, withPending } from "./zone-pointers.js";

/**
 * Makes the disk what it was when the snapshot was taken, its size included. What was written since is lost unless another
 * snapshot has it. The snapshot stays. `choose` gives one of the image's own; asked once it is clear that one can be applied.
 *
 * Throws `BITMAPS_IN_THE_WAY` for an image with bitmaps, which would not describe the disk any more, `QCOW2_SNAPSHOT_L1`, `QCOW2_SIZE`,
 * `IMAGE_CORRUPT`, and the codes of the storage; the image is unchanged then.
 */
export async function applySnapshot(image: ImageAtRest, choose: () => Snapshot): Promise<void> {
  const { header, geometry } = image;
  if (header.bitmaps !== undefined) throw bitmapsInTheWay(image);
  const snapshot = choose();
  if (header.zoned !== undefined) {
    await pointersOfSnapshot(image.storage, header, header.zoned, geometry, snapshot);
  }
  const place = snapshotL1(snapshot, header);
  const size = diskSizeOf(image, snapshot);
  const taken = await readSnapshotL1(image, place);
  await countTree(image, taken, 1);
  await countTree(image, activeL1(image), -1);
  const entries = Math.max(place.entries, ceilDiv(size, geometry.l2Coverage));
  const l1 = new Uint8Array(entries * TABLE_ENTRY_BYTES);
  l1.set(taken);
  await settleTree(image, l1);
  const active = await replaceActiveL1(image, l1);
  await image.commit({ ...active, ...(await markedTable(image, snapshot)), size });
}

/** The write pointers of a zoned image follow the mapping: until they are in their table, the snapshot's own count. */
async function markedTable(image: ImageAtRest, snapshot: Snapshot): Promise<HeaderChange> {
  if (image.header.zoned === undefined) return {};
  const marked = image.snapshots.snapshots.map((other) => (other === snapshot ? withPending(other) : other));
  return replaceSnapshotTable(image, marked);
}

/** Version 2 entries may not say how large the disk was; then it has the size it has now. */
function diskSizeOf({ header, geometry }: ImageAtRest, snapshot: Snapshot): number {
  const size = snapshot.diskSize ?? BigInt(header.size);
  const limit = (MAX_L1_BYTES / TABLE_ENTRY_BYTES) * geometry.l2Coverage;
  if (size <= BigInt(Math.min(limit, Number.MAX_SAFE_INTEGER))) return Number(size);
  throw new ZcowError(
    "QCOW2_SIZE",
    `Snapshot ${snapshot.id} (${snapshot.name}) is of a disk of ${size} bytes, above ${limit}, the largest with clusters of ${geometry.clusterSize} bytes`,
    { data: { structure: `snapshot ${snapshot.id}`, field: "disk size", value: size, limit } },
  );
}

function bitmapsInTheWay({ header, storage }: ImageAtRest): ZcowError {
  return new ZcowError(
    "BITMAPS_IN_THE_WAY",
    `${storage.name} has ${header.bitmaps?.count} bitmaps, which would no longer say what has changed; remove them to apply a snapshot`,
    { data: { path: storage.name, structure: "bitmaps extension" }, stockText: "Device has active dirty bitmaps" },
  );
}
