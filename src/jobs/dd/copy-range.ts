import { alignDown, alignUp } from "../../base/integers.js";
import { isPromise } from "../../base/maybe-promise.js";
import { MiB } from "../../base/units.js";
import type { BlockDevice } from "../../block/block-device.js";

const PIECE_BYTES = MiB;

/** Which part of a disk is copied. Bytes. */
export interface CopiedRange {
  /** Where it starts on the source. */
  readonly skip: number;
  readonly length: number;
}

/**
 * Copies a part of `source` to the start of `target`, which reads as zeros everywhere. What the source knows to be zero is
 * neither read nor written. Nothing is flushed. Fails with the first error of either side.
 */
export async function copyRange(
  source: BlockDevice,
  target: BlockDevice,
  { skip, length }: CopiedRange,
): Promise<void> {
  const { requestAlignment } = source.limits;
  const from = alignDown(skip, requestAlignment);
  const to = Math.min(source.size, alignUp(skip + length, requestAlignment));
  const buffer = new Uint8Array(PIECE_BYTES);
  for await (const extent of source.extents(from, to - from)) {
    if (extent.zero) continue;
    const end = Math.min(skip + length, extent.offset + extent.length);
    for (let at = Math.max(skip, extent.offset); at < end; ) {
      const bytes = buffer.subarray(0, Math.min(PIECE_BYTES, end - at));
      const read = source.read(at, bytes);
      if (isPromise(read)) await read;
      const written = target.write(at - skip, bytes);
      if (isPromise(written)) await written;
      at += bytes.length;
    }
  }
}
