import type { BlockExtent } from "../../block/block-device.js";
import type { Mapped } from "../compare/paired-runs.js";

/** A run that the images above the base have a say about. Bytes. */
export interface CommittedRun {
  readonly offset: number;
  readonly length: number;
  readonly zero: boolean;
}

/** The runs of `top` from `offset` on that do not come from the image at `baseDepth` (1: right behind it) or below it. */
export async function* committedRuns(
  top: Mapped,
  baseDepth: number,
  offset = 0,
  length = top.size - offset,
): AsyncGenerator<CommittedRun> {
  if (length === 0) return;
  for await (const extent of top.extents(offset, length)) {
    if (isAbove(extent, baseDepth)) yield { offset: extent.offset, length: extent.length, zero: extent.zero };
  }
}

/**
 * Past the end of a short image there are zeros, which hide what is below when another image is. Right over the base they
 * are not in its way: it is made larger with zeros.
 */
function isAbove({ kind, zero, depth }: BlockExtent, baseDepth: number): boolean {
  if (kind !== "unallocated") return depth < baseDepth;
  return zero && depth < baseDepth - 1;
}
