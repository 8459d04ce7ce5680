import type { BlockDevice } from "../../../block/block-device.js";
import type { DirtyBits } from "./dirty-bits.js";

/** A disk whose writes are recorded in the bitmaps of its image. */
export interface BitmapTracking {
  /** The bitmap as it is now, with all writes so far. Undefined when the image is not writable. Fails with `BITMAP_*`. */
  dirtyBits(name: string): DirtyBits | undefined;
}

export function tracksBitmaps(device: BlockDevice): device is BlockDevice & BitmapTracking {
  return "dirtyBits" in device;
}
