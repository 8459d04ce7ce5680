import type { BlockExtent } from "./block-device.js";

/**
 * Where the file of the device itself has the byte at `offset`, which lies in `extent`; undefined when it is elsewhere, or not stored as it is.
 * What may be read there by `BlockDevice.descriptor`.
 */
export function hostPlace(extent: BlockExtent | undefined, offset: number): number | undefined {
  if (extent?.hostOffset === undefined || extent.file !== undefined || extent.depth > 0) return undefined;
  return extent.hostOffset + offset - extent.offset;
}
