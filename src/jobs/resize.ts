import { ZcowError } from "../base/errors.js";
import { alignDown, alignUp } from "../base/integers.js";
import { isPromise } from "../base/maybe-promise.js";
import { SECTOR_SIZE } from "../base/units.js";
import type { ImplicitFilePolicy } from "../block/open-policy.js";
import type { PassphraseSource } from "../block/passphrase.js";
import type { FormatChoice } from "../formats/open-image.js";
import type { Preallocation } from "../formats/qcow2/create-layout.js";
import type { ClusterEngine } from "../formats/qcow2/engine.js";
import { AUTOCLEAR } from "../formats/qcow2/features.js";
import type { GuestData } from "../formats/qcow2/guest-data.js";
import type { ImageAtRest } from "../formats/qcow2/rewrite/image-at-rest.js";
import { FORMATS, formatDriver, probeFormat } from "../formats/registry.js";
import { borrowedStorage } from "../storage/borrowed-storage.js";
import { openStorage } from "../storage/open-storage.js";
import type { Storage } from "../storage/storage.js";

/** How the size of a disk is changed. */
export interface ResizeImageOptions {
  readonly format: FormatChoice;
  /** New size of the disk in bytes. For qcow2 a multiple of 512. */
  readonly size: number;
  /** Must be true for a size below the present one: what lies beyond is lost. */
  readonly shrink?: boolean;
  /** How the new part of a larger disk takes space; default `"off"`. Raw disks know all but `"metadata"`. */
  readonly preallocation?: Preallocation;
  /** Files that the image names; default `"deny"`. Needed where a backing file must not show through in the new part. */
  readonly implicitFiles?: ImplicitFilePolicy | undefined;
  /** Opens the image when it is encrypted. */
  readonly passphrase?: PassphraseSource | undefined;
}

/**
 * Changes the size of a disk. Nobody may use the image meanwhile. Durable when it resolves. A crash leaves the old size or the new
 * one; on the way to a smaller one the part to be cut off may read as zeros already. A storage that was passed in stays open.
 *
 * Bitmaps get the new size, with nothing marked in the new part; a crash on the way leaves them inconsistent.
 *
 * Fails with `SHRINK_NOT_ALLOWED`, `INVALID_ARGUMENT` for a size or preallocation that cannot be, `NOT_SUPPORTED` for zoned images, formats
 * that are read only, and version 2 images with snapshots, `BITMAP_INCONSISTENT`, `FILE_TOO_LARGE`, and as `openImage` does.
 */
export async function resizeImage(source: string | Storage, options: ResizeImageOptions): Promise<void> {
  if (options.size > Number.MAX_SAFE_INTEGER) {
    throw new ZcowError(
      "FILE_TOO_LARGE",
      `A disk of ${options.size} bytes is above 2^53-1, the largest that can be counted`,
      {
        data: { option: "size", value: options.size, limit: Number.MAX_SAFE_INTEGER },
        stockText: "Failed to grow the L1 table: File too large",
      },
    );
  }
  if (!Number.isSafeInteger(options.size) || options.size < 0) {
    throw new ZcowError("INVALID_ARGUMENT", `size ${options.size} is not a whole number of bytes from 0 to 2^53-1`, {
      data: { option: "size", value: options.size, limit: Number.MAX_SAFE_INTEGER },
    });
  }
  if (typeof source !== "string") return resizeStorage(source, options);
  if (options.format !== "probe") formatDriver(options.format);
  const storage = await openStorage(source, { writable: true });
  try {
    await resizeStorage(storage, options);
  } finally {
    await storage.close();
  }
}

async function resizeStorage(storage: Storage, options: ResizeImageOptions): Promise<void> {
  const driver = options.format === "probe" ? await probeFormat(storage) : formatDriver(options.format);
  if (driver.name === "raw") return resizeRaw(storage, options);
  if (driver.name === "qcow2") return resizeQcow2(storage, options);
  throw new ZcowError("NOT_SUPPORTED", `${storage.name} is ${driver.name}, which can be read only`, {
    data: { path: storage.name, value: driver.name },
    stockText: "Image format driver does not support resize",
  });
}

/** The rules that all formats share, in the order of the stock tool. */
function requireWanted(storage: Storage, current: number, options: ResizeImageOptions): void {
  const { size, preallocation = "off", shrink = false } = options;
  const data = { path: storage.name, value: size, limit: current };
  if (size <= current && preallocation !== "off") {
    throw new ZcowError(
      "INVALID_ARGUMENT",
      `Preallocation is for larger disks; ${size} is not above ${current} bytes`,
      {
        data: { ...data, option: "preallocation" },
        stockText: "Preallocation can only be used for growing images",
      },
    );
  }
  if (size >= current || shrink) return;
  throw new ZcowError(
    "SHRINK_NOT_ALLOWED",
    `${size} bytes are less than the ${current} that ${storage.name} has: everything beyond would be lost, and shrinking was not asked for`,
    { data: { ...data, option: "shrink" }, stockText: "Use the --shrink option to perform a shrink operation." },
  );
}

async function resizeRaw(storage: Storage, options: ResizeImageOptions): Promise<void> {
  const current = alignUp(storage.size(), SECTOR_SIZE);
  requireWanted(storage, current, options);
  const { size, preallocation = "off" } = options;
  if (preallocation === "metadata") {
    throw new ZcowError("INVALID_ARGUMENT", "A raw disk has no metadata that could be allocated beforehand", {
      data: { option: "preallocation", value: preallocation },
      stockText: "Unsupported preallocation mode: metadata",
    });
  }
  const from = storage.size();
  const truncated = storage.truncate(size);
  if (isPromise(truncated)) await truncated;
  if (preallocation !== "off" && size > from) {
    const zeroed = storage.writeZeroes(from, size - from, { unmap: false });
    if (isPromise(zeroed)) await zeroed;
  }
  const flushed = storage.flush();
  if (isPromise(flushed)) await flushed;
}

async function resizeQcow2(storage: Storage, options: ResizeImageOptions): Promise<void> {
  const { ImageAtRest: Image } = await import("../formats/qcow2/rewrite/image-at-rest.js");
  const { requireResizable } = await import("../formats/qcow2/rewrite/resize-disk.js");
  const image = await Image.open(storage);
  requireWanted(storage, image.header.size, options);
  if (options.size === image.header.size) return;
  requireResizable(image, options.size);
  const change = options.size > image.header.size ? () => grow(image, options) : () => shrink(image, options);
  if (image.header.bitmaps === undefined) return change();
  const { keepingBitmaps } = await import("../formats/qcow2/bitmaps/resize-bitmaps.js");
  const opening = { implicitFiles: options.implicitFiles ?? "deny", passphrase: options.passphrase };
  await keepingBitmaps(storage, image.header, options.size, opening, change);
}

async function grow(image: ImageAtRest, options: ResizeImageOptions): Promise<void> {
  const { growDisk } = await import("../formats/qcow2/rewrite/grow-disk.js");
  const { header } = image;
  const { size, preallocation: wanted = "off" } = options;
  // A raw data file shows everything that is in it, so everything is mapped.
  const isRaw = (header.features.autoclear & AUTOCLEAR.rawExternalData) !== 0n;
  const preallocation = isRaw && wanted === "off" ? "metadata" : wanted;
  const { backed, lastCluster } = await behind(image, options);
  const data = await guestData(image, options);
  try {
    await resizeDataFile(image, data, { ...options, preallocation });
    await growDisk(image, { size, preallocation, data, backed, lastCluster });
  } finally {
    await data.close();
  }
}

async function shrink(image: ImageAtRest, options: ResizeImageOptions): Promise<void> {
  const { ImageAtRest: Image } = await import("../formats/qcow2/rewrite/image-at-rest.js");
  const { shrinkDisk } = await import("../formats/qcow2/rewrite/resize-disk.js");
  await dropData(image, options);
  await shrinkDisk(await Image.open(image.storage), options.size);
  if (!image.geometry.externalData) return;
  const data = await guestData(image, options);
  try {
    await resizeDataFile(image, data, options);
  } finally {
    await data.close();
  }
}

/** Where the bytes of the disk live, as large as it is to be. */
async function guestData({ header, storage }: ImageAtRest, options: ResizeImageOptions): Promise<GuestData> {
  const { openGuestData } = await import("../formats/qcow2/open-data.js");
  const { implicitFiles = "deny", passphrase, size } = options;
  return openGuestData({ ...header, size }, storage, { implicitFiles, passphrase }, FORMATS);
}

/**
 * What a larger disk must not show: how far its backing image reaches, and what the cluster in which the disk ends now has to hold
 * where both meet in it.
 */
async function behind(
  { header, geometry, storage }: ImageAtRest,
  options: ResizeImageOptions,
): Promise<{ readonly backed: number; readonly lastCluster: Uint8Array | undefined }> {
  if (header.backingFileName === undefined) return { backed: 0, lastCluster: undefined };
  const engine = await openQuietly(storage, options, true);
  try {
    const backed = engine.backingSize;
    const start = alignDown(header.size, geometry.clusterSize);
    if (start === header.size || backed <= start) return { backed, lastCluster: undefined };
    const lastCluster = new Uint8Array(geometry.clusterSize);
    const wait = engine.read(start, lastCluster.subarray(0, header.size - start));
    if (isPromise(wait)) await wait;
    return { backed, lastCluster };
  } finally {
    await engine.close();
  }
}

/** An external data file is as long as its disk: longer before the disk is, and shorter after. What it had behind its end is not shown. */
async function resizeDataFile(
  { header, geometry }: ImageAtRest,
  { storage }: GuestData,
  { size, preallocation = "off" }: ResizeImageOptions,
): Promise<void> {
  if (!geometry.externalData) return;
  const had = storage.size();
  const truncated = storage.truncate(size);
  if (isPromise(truncated)) await truncated;
  const takesSpace = preallocation === "falloc" || preallocation === "full";
  const end = takesSpace ? size : Math.min(size, had);
  if (preallocation !== "off" && end > header.size) {
    const zeroed = storage.writeZeroes(header.size, end - header.size, { unmap: !takesSpace });
    if (isPromise(zeroed)) await zeroed;
  }
  const flushed = storage.flush();
  if (isPromise(flushed)) await flushed;
}

async function openQuietly(
  storage: Storage,
  { implicitFiles = "deny", passphrase }: ResizeImageOptions,
  readOnly = false,
): Promise<ClusterEngine> {
  const { openEngine } = await import("../formats/qcow2/open.js");
  return openEngine(borrowedStorage(storage), { readOnly, implicitFiles, passphrase, formats: FORMATS });
}

/** Gives back the clusters past the new end, and leaves zeros in the rest of the last one, which a larger disk would show again. */
async function dropData({ storage, header, geometry }: ImageAtRest, options: ResizeImageOptions): Promise<void> {
  const engine = await openQuietly(storage, options);
  try {
    const from = Math.min(header.size, alignUp(options.size, geometry.clusterSize));
    if (from > options.size) await engine.writeZeroes(options.size, from - options.size, true);
    if (header.size > from) await engine.discard(from, header.size - from, "forget");
    await engine.flush();
  } finally {
    await engine.close();
  }
}
