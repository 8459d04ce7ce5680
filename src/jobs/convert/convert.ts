import { ZcowError } from "../../base/errors.js";
import type { BlockDevice } from "../../block/block-device.js";
import { isZonedDevice } from "../../block/zoned-device.js";
import { copyCompressed } from "./copy-compressed.js";
import { type CopyOptions, copyDisk } from "./copy-disk.js";
import { JoinedDisk } from "./joined-disk.js";

/** How disks are copied. */
export interface ConvertOptions extends CopyOptions {
  /** Store clusters compressed: the target must be a qcow2 image that holds nothing in their place. Default false. */
  readonly compressed?: boolean;
}

/**
 * Copies `sources`, one after the other, to the start of `target`. Nothing is created, flushed or closed. The zones of a zoned target
 * are filled from their starts, see `copyToZones`.
 *
 * Fails with `TARGET_TOO_SMALL` before anything is written, `NOT_SUPPORTED` when compression was asked for and the target cannot,
 * and with the first error of either side.
 */
export async function convertDisks(
  sources: readonly BlockDevice[],
  target: BlockDevice,
  options: ConvertOptions,
): Promise<void> {
  const source = new JoinedDisk(sources);
  if (target.size < source.size) {
    throw new ZcowError(
      "TARGET_TOO_SMALL",
      `${target.name} has ${target.size} bytes, too few for the ${source.size} bytes that are to be copied`,
      {
        data: { path: target.name, value: target.size, limit: source.size },
        stockText: "output file is smaller than input file",
      },
    );
  }
  if (isZonedDevice(target)) {
    const { copyToZones } = await import("./copy-to-zones.js");
    return copyToZones(source, sources, target, options);
  }
  if (options.compressed !== true) return copyDisk(source, target, options);
  return copyCompressed(source, target, target.limits.optimalAlignment, options);
}
