import { alignDown, alignUp } from "../../base/integers.js";
import type { BlockExtent } from "../../block/block-device.js";
import type { OldContents } from "./old-contents.js";

/** How the bytes of `extent`, of which this image has nothing, are stored behind it: one level deeper for each image of the chain. */
export async function* backedExtents(
  { backing }: Pick<OldContents, "backing">,
  extent: BlockExtent,
): AsyncGenerator<BlockExtent> {
  const end = extent.offset + extent.length;
  const backedEnd = backing === undefined ? extent.offset : Math.min(end, Math.max(backing.size, extent.offset));
  if (backing !== undefined && backedEnd > extent.offset) {
    const { requestAlignment } = backing.limits;
    const from = alignDown(extent.offset, requestAlignment);
    const to = Math.min(backing.size, alignUp(backedEnd, requestAlignment));
    for await (const behind of backing.extents(from, to - from)) {
      const part = cut(behind, extent.offset, backedEnd);
      yield { ...part, depth: part.depth + 1, file: part.file ?? backing.name };
    }
  }
  if (backedEnd < end) yield { ...extent, offset: backedEnd, length: end - backedEnd, zero: true };
}

/** The part of `extent` inside [from, to). */
function cut(extent: BlockExtent, from: number, to: number): BlockExtent {
  const offset = Math.max(extent.offset, from);
  const length = Math.min(extent.offset + extent.length, to) - offset;
  const { hostOffset } = extent;
  return {
    ...extent,
    offset,
    length,
    hostOffset: hostOffset === undefined ? undefined : hostOffset + offset - extent.offset,
  };
}
