import { isZcowError, ZcowError } from "../../../base/errors.js";
import { INCOMPATIBLE } from "../features.js";
import { encodeFileName } from "../file-name.js";
import { MAX_SNAPSHOTS, TABLE_ENTRY_BYTES } from "../limits.js";
import type { ImageAtRest } from "../rewrite/image-at-rest.js";
import { activeL1, replaceActiveL1, shareTree } from "./mapping-rewrite.js";
import type { Snapshot } from "./snapshot.js";
import { newSnapshotId } from "./snapshot-lookup.js";
import { KNOWN_EXTRA_BYTES } from "./snapshot-table.js";
import { replaceSnapshotTable } from "./table-rewrite.js";
import { keepPointers } from "./zone-pointers.js";

/** Longest name that the stock tools can hold, in bytes of UTF-8. */
export const MAX_SNAPSHOT_NAME_BYTES = 255;

const NO_EXTRA = new Uint8Array(0);

/**
 * Keeps the disk as it is now as a snapshot: the L1 table is copied, and everything under it belongs to both from then on. Names need
 * not be unique. Returns the new snapshot.
 *
 * Throws `INVALID_ARGUMENT` for a name of more than 255 bytes, `SNAPSHOT_LIMIT`, `REFCOUNT_OVERFLOW` when the counts are too narrow,
 * `IMAGE_CORRUPT`, and the codes of the storage; the image is unchanged then.
 */
export async function createSnapshot(image: ImageAtRest, name: string, date: Date): Promise<Snapshot> {
  checkName(name);
  const { header, snapshots } = image;
  refuseDataFile(image);
  if (snapshots.snapshots.length >= MAX_SNAPSHOTS) {
    throw new ZcowError("SNAPSHOT_LIMIT", `${image.storage.name} has ${MAX_SNAPSHOTS} snapshots, the limit`, {
      data: { structure: "snapshot table", value: snapshots.snapshots.length, limit: MAX_SNAPSHOTS },
    });
  }
  try {
    const l1 = activeL1(image);
    await shareTree(image, l1);
    const kept =
      header.zoned === undefined ? { l1, unknownExtra: NO_EXTRA } : await keepPointers(image, header.zoned, l1);
    const snapshot: Snapshot = {
      id: newSnapshotId(snapshots.snapshots),
      name,
      l1Offset: BigInt(await image.place(kept.l1)),
      l1Entries: kept.l1.length / TABLE_ENTRY_BYTES,
      ...timeOf(date),
      vmClock: 0n,
      vmStateSize: 0n,
      diskSize: BigInt(header.size),
      icount: 0n,
      unknownExtra: kept.unknownExtra,
      extraLength: KNOWN_EXTRA_BYTES + kept.unknownExtra.length,
    };
    const active = await replaceActiveL1(image, l1);
    const table = await replaceSnapshotTable(image, [...snapshots.snapshots, snapshot]);
    await image.commit({ ...active, ...table });
    return snapshot;
  } catch (error) {
    throw isZcowError(error, "REFCOUNT_OVERFLOW") ? tooNarrow(error, image) : error;
  }
}

/** Nothing in a data file is counted, so the disk and a snapshot would write to the same bytes. */
function refuseDataFile({ header, storage }: ImageAtRest): void {
  if ((header.features.incompatible & INCOMPATIBLE.externalData) === 0n) return;
  throw new ZcowError("NOT_SUPPORTED", `${storage.name} keeps its data in an external file, which has no snapshots`, {
    data: { path: storage.name },
  });
}

function checkName(name: string): void {
  const length = encodeFileName(name).length;
  if (length <= MAX_SNAPSHOT_NAME_BYTES) return;
  throw new ZcowError(
    "INVALID_ARGUMENT",
    `The snapshot name has ${length} bytes, above the limit of ${MAX_SNAPSHOT_NAME_BYTES}`,
    { data: { field: "name", value: length, limit: MAX_SNAPSHOT_NAME_BYTES } },
  );
}

function timeOf(date: Date): Pick<Snapshot, "dateSeconds" | "dateNanoseconds"> {
  const milliseconds = date.getTime();
  const seconds = Math.floor(milliseconds / 1000);
  return { dateSeconds: seconds >>> 0, dateNanoseconds: (milliseconds - seconds * 1000) * 1_000_000 };
}

/** The stock tools call it an invalid argument. */
function tooNarrow(error: ZcowError, { geometry, storage }: ImageAtRest): ZcowError {
  return new ZcowError(
    "REFCOUNT_OVERFLOW",
    `${storage.name} can take no further snapshot: its reference counts have ${geometry.refcountBits} bits, and a cluster is shared ${geometry.maxRefcount} times already (amend can make them wider)`,
    { data: { ...error.data, path: storage.name, errno: "EINVAL" }, cause: error },
  );
}
