import { ZcowError } from "../../../base/errors.js";
import { ceilDiv } from "../../../base/integers.js";
import { MAX_L1_BYTES, TABLE_ENTRY_BYTES } from "../limits.js";
import type { ImageAtRest } from "../rewrite/image-at-rest.js";
import { activeL1, countTree, readSnapshotL1, replaceActiveL1, settleTree } from "./mapping-rewrite.js";
import type { Snapshot } from "./snapshot.js";
import { snapshotL1 } from "./snapshot-lookup.js";

/**
 * Makes the disk what it was when the snapshot was taken, its size included. What was written since is lost unless another
 * snapshot has it. The snapshot stays. `snapshot` is one of the image's own.
 *
 * Throws `BITMAPS_IN_THE_WAY` for an image with bitmaps, which would not describe the disk any more, `QCOW2_SNAPSHOT_L1`, `QCOW2_SIZE`,
 * `IMAGE_CORRUPT`, and the codes of the storage; the image is unchanged then.
 */
export async function applySnapshot(image: ImageAtRest, snapshot: Snapshot): Promise<void> {
  const { header, geometry } = image;
  if (header.bitmaps !== undefined) throw bitmapsInTheWay(image);
  const place = snapshotL1(snapshot, header);
  const size = diskSizeOf(image, snapshot);
  const taken = await readSnapshotL1(image, place);
  await countTree(image, taken, 1);
  await countTree(image, activeL1(image), -1);
  const entries = Math.max(place.entries, ceilDiv(size, geometry.l2Coverage));
  const l1 = new Uint8Array(entries * TABLE_ENTRY_BYTES);
  l1.set(taken);
  await settleTree(image, l1);
  await image.commit({ ...(await replaceActiveL1(image, l1)), size });
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
