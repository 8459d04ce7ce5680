import { ZcowError } from "../base/errors.js";
import type { FormatChoice } from "../formats/open-image.js";
import { INCOMPATIBLE } from "../formats/qcow2/features.js";
import { readHeader } from "../formats/qcow2/header-read.js";
import type { ImageAtRest } from "../formats/qcow2/rewrite/image-at-rest.js";
import type { Snapshot } from "../formats/qcow2/snapshots/snapshot.js";
import { findSnapshot } from "../formats/qcow2/snapshots/snapshot-lookup.js";
import { readSnapshotTable } from "../formats/qcow2/snapshots/snapshot-table.js";
import { formatDriver, probeFormat } from "../formats/registry.js";
import { openStorage } from "../storage/open-storage.js";
import type { Storage } from "../storage/storage.js";

/** Which image, and how to open it. */
export interface SnapshotImageOptions {
  readonly format: FormatChoice;
  /** Ignore the locks of other processes; for listing only. */
  readonly forceShare?: boolean;
}

/** A new snapshot. */
export interface CreateSnapshotOptions extends SnapshotImageOptions {
  /** At most 255 bytes of UTF-8; need not be unique. */
  readonly name: string;
  /** Default: now. */
  readonly date?: Date;
}

/** A snapshot that is there already. */
export interface ChooseSnapshotOptions extends SnapshotImageOptions {
  /** To apply: an id, or else a name. To delete: a name. The first snapshot that fits is meant. */
  readonly snapshot: string;
}

/**
 * The internal snapshots of an image, in the order of its table; none for formats without. A storage that was passed in stays open.
 *
 * Fails with `QCOW2_SNAPSHOT_TABLE`, and as `describeImage` does.
 */
export async function listSnapshots(
  source: string | Storage,
  options: SnapshotImageOptions,
): Promise<readonly Snapshot[]> {
  return withStorage(source, options, false, async (storage) => {
    if (!(await isQcow2(storage, options))) return [];
    return (await readSnapshotTable(storage, await readHeader(storage, { mode: "info" }))).snapshots;
  });
}

/**
 * Takes a snapshot of the disk as it is. Nobody may use the image meanwhile. Durable when it resolves; a crash leaves the image with
 * the snapshot or without. A storage that was passed in stays open.
 *
 * Fails with `NOT_SUPPORTED` for raw images and external data files, `INVALID_ARGUMENT` for a name of more than 255 bytes,
 * `SNAPSHOT_LIMIT`, `REFCOUNT_OVERFLOW`, `IMAGE_CORRUPT`, and the codes of the header and of the storage.
 */
export async function createSnapshot(source: string | Storage, options: CreateSnapshotOptions): Promise<Snapshot> {
  return withImage(source, options, async (image) => {
    const { createSnapshot: create } = await import("../formats/qcow2/snapshots/create-snapshot.js");
    return create(image, options.name, options.date ?? new Date());
  });
}

/**
 * Makes the disk what it was when the snapshot was taken; the snapshot stays. Nobody may use the image meanwhile. Durable when it
 * resolves; a crash leaves the disk as it was before or as it is after.
 *
 * Fails with `SNAPSHOT_NOT_FOUND`, `BITMAPS_IN_THE_WAY`, `QCOW2_SNAPSHOT_L1`, and as `createSnapshot` does.
 */
export async function applySnapshot(source: string | Storage, options: ChooseSnapshotOptions): Promise<void> {
  return withImage(source, options, async (image) => {
    const { applySnapshot: apply } = await import("../formats/qcow2/snapshots/apply-snapshot.js");
    await apply(image, () => chosen(image, options, "id-or-name"));
  });
}

/**
 * Removes a snapshot and frees what only it used. Nobody may use the image meanwhile. Durable when it resolves; a crash leaves the
 * image with the snapshot or without.
 *
 * Fails with `SNAPSHOT_NOT_FOUND`, `QCOW2_SNAPSHOT_L1`, and as `createSnapshot` does.
 */
export async function deleteSnapshot(source: string | Storage, options: ChooseSnapshotOptions): Promise<void> {
  return withImage(source, options, async (image) => {
    const { deleteSnapshot: remove } = await import("../formats/qcow2/snapshots/delete-snapshot.js");
    await remove(image, chosen(image, options, "name"));
  });
}

function chosen(image: ImageAtRest, { snapshot }: ChooseSnapshotOptions, key: "id-or-name" | "name"): Snapshot {
  return findSnapshot(image.snapshots.snapshots, snapshot, key, image.storage.name);
}

async function withImage<T>(
  source: string | Storage,
  options: SnapshotImageOptions,
  work: (image: ImageAtRest) => Promise<T>,
): Promise<T> {
  return withStorage(source, options, true, async (storage) => {
    if (!(await isQcow2(storage, options))) {
      throw new ZcowError("NOT_SUPPORTED", `${storage.name} is of a format without snapshots`, {
        data: { path: storage.name },
        stockText: "Block driver does not support snapshots",
      });
    }
    const { ImageAtRest: Image } = await import("../formats/qcow2/rewrite/image-at-rest.js");
    await settlePointers(storage);
    const image = await Image.open(storage);
    refuseUnsuited(image);
    const result = await work(image);
    await settlePointers(storage);
    return result;
  });
}

/** The write pointers of a snapshot that was applied go into their table: at once, or now when a crash came between. */
async function settlePointers(storage: Storage): Promise<void> {
  const header = await readHeader(storage, { writable: true });
  if (header.zoned === undefined || header.snapshotCount === 0) return;
  const { settleApplied } = await import("../formats/qcow2/snapshots/zone-pointers.js");
  const { geometryOf } = await import("../formats/qcow2/rewrite/image-at-rest.js");
  const { snapshots } = await readSnapshotTable(storage, header);
  await settleApplied(storage, header, geometryOf(header, header.refcountOrder), snapshots);
}

function refuseUnsuited({ header, storage }: ImageAtRest): void {
  const data = { path: storage.name };
  if ((header.features.incompatible & INCOMPATIBLE.externalData) !== 0n) {
    const message = `${storage.name} keeps its data in an external file, of which there are no snapshots`;
    throw new ZcowError("NOT_SUPPORTED", message, { data });
  }
}

async function isQcow2(storage: Storage, { format }: SnapshotImageOptions): Promise<boolean> {
  const driver = format === "probe" ? await probeFormat(storage) : formatDriver(format);
  return driver.name === "qcow2";
}

async function withStorage<T>(
  source: string | Storage,
  { format, forceShare = false }: SnapshotImageOptions,
  writable: boolean,
  work: (storage: Storage) => Promise<T>,
): Promise<T> {
  if (typeof source !== "string") return work(source);
  if (format !== "probe") formatDriver(format);
  const storage = await openStorage(source, writable ? { writable } : { lock: { use: "inspect" }, forceShare });
  try {
    return await work(storage);
  } finally {
    await storage.close();
  }
}
