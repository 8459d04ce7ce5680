import { ZcowError } from "../../base/errors.js";
import { alignUp } from "../../base/integers.js";
import { SECTOR_SIZE } from "../../base/units.js";
import type { BlockDevice } from "../../block/block-device.js";
import type { CreateImageOptions } from "../../formats/create-image.js";
import type { MeasuredBitmap, MeasuredSource, Measurement } from "../../formats/qcow2/measure.js";
import { formatDriver } from "../../formats/registry.js";

/** What is to be copied into the new image: a disk, or only its size in bytes. */
export type MeasureSource =
  | { readonly size: number }
  | {
      readonly device: BlockDevice;
      /** The persistent bitmaps of the disk; undefined where there can be none. */
      readonly bitmaps?: readonly MeasuredBitmap[] | undefined;
    };

/**
 * How large the file of a new image gets when `source` is copied into it. Creates nothing. `options.size` is not looked at.
 *
 * Fails with `NOT_SUPPORTED` for formats that cannot be made, and as `createImage` does for options that cannot be.
 */
export async function measureImage(options: CreateImageOptions, source: MeasureSource): Promise<Measurement> {
  const size = alignUp("size" in source ? source.size : source.device.size, SECTOR_SIZE);
  if (options.format === "raw") return { required: size, fullyAllocated: size };
  const { measureQcow2 } = await import("../../formats/qcow2/measure.js");
  const measured: MeasuredSource =
    "size" in source
      ? { size }
      : { size, extents: source.device.extents(0, source.device.size), bitmaps: source.bitmaps };
  return measureQcow2(options, measured);
}

/** Fails with `FORMAT_UNKNOWN` or `NOT_SUPPORTED` for formats of which no image can be made. */
export function requireMeasurable(format: string): void {
  if (formatDriver(format).creatable) return;
  throw new ZcowError("NOT_SUPPORTED", `images of the format '${format}' can be read, but not made`, {
    data: { option: "format", value: format },
    stockText: `Block driver '${format}' does not support size measurement`,
  });
}
