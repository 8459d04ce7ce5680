import { isZcowError, ZcowError } from "../base/errors.js";
import { alignUp } from "../base/integers.js";
import { isPromise } from "../base/maybe-promise.js";
import { SECTOR_SIZE } from "../base/units.js";
import type { ImplicitFilePolicy } from "../block/open-policy.js";
import type { FormatChoice } from "../formats/open-image.js";
import type { Preallocation } from "../formats/qcow2/create-layout.js";
import type { ClusterEngine } from "../formats/qcow2/engine.js";
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
  readonly implicitFiles?: ImplicitFilePolicy;
}

/**
 * Changes the size of a disk. Nobody may use the image meanwhile. Durable when it resolves. A crash leaves the old size or the new
 * one; on the way to a smaller one the part to be cut off may read as zeros already. A storage that was passed in stays open.
 *
 * Fails with `SHRINK_NOT_ALLOWED`, `INVALID_ARGUMENT` for a size or preallocation that cannot be, `NOT_SUPPORTED` for zoned images, formats
 * that are read only, and version 2 images with snapshots, `BITMAPS_IN_THE_WAY`, `FILE_TOO_LARGE`, and as `openImage` does.
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
  const { growDisk, requireResizable, shrinkDisk } = await import("../formats/qcow2/rewrite/resize-disk.js");
  const image = await Image.open(storage);
  const current = image.header.size;
  const { size, preallocation = "off" } = options;
  requireWanted(storage, current, options);
  if (size === current) return;
  requireResizable(image, size, preallocation);
  if (size > current) {
    const mayShow = image.header.backingFileName !== undefined && preallocation === "off";
    if (mayShow) await (await openQuietly(storage, options)).close();
    await resizeDataFile(image, options);
    await growDisk(image, size, preallocation);
    if (mayShow) await hideBacking(storage, options, current);
    return;
  }
  await dropData(image, options);
  await shrinkDisk(await Image.open(storage), size);
  await resizeDataFile(image, options);
}

/** An external data file is as long as its disk: longer before the disk is, and shorter after. */
async function resizeDataFile({ header, geometry, storage }: ImageAtRest, options: ResizeImageOptions): Promise<void> {
  if (!geometry.externalData) return;
  const { openReferencedFiles } = await import("../formats/qcow2/referenced-files.js");
  const { implicitFiles = "deny", size } = options;
  const own = { ...header, backingFileName: undefined };
  const { data } = await openReferencedFiles(own, storage, { writable: true, implicitFiles }, FORMATS);
  if (data === undefined) return;
  try {
    const truncated = data.storage.truncate(size);
    if (isPromise(truncated)) await truncated;
    const flushed = data.storage.flush();
    if (isPromise(flushed)) await flushed;
  } finally {
    await data.close();
  }
}

async function openQuietly(storage: Storage, { implicitFiles = "deny" }: ResizeImageOptions): Promise<ClusterEngine> {
  const { openEngine } = await import("../formats/qcow2/open.js");
  return openEngine(borrowedStorage(storage), { readOnly: false, implicitFiles });
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

/** A backing file that reaches past the old end must not show: the new part is to be zeros. */
async function hideBacking(storage: Storage, options: ResizeImageOptions, from: number): Promise<void> {
  const engine = await openQuietly(storage, options);
  try {
    for await (const extent of engine.extents(from, options.size - from)) {
      if (!extent.zero) await engine.writeZeroes(extent.offset, extent.length, true);
    }
    await engine.flush();
  } catch (error) {
    throw isZcowError(error)
      ? new ZcowError(
          error.code,
          `${storage.name} is larger now, but its backing file may show in the new part: ${error.message}`,
          {
            data: error.data,
            cause: error,
          },
        )
      : error;
  } finally {
    await engine.close();
  }
}
