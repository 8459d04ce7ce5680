import { alignDown, alignUp } from "../../base/integers.js";
import { isPromise } from "../../base/maybe-promise.js";
import { KiB } from "../../base/units.js";
import type { BlockDevice } from "../../block/block-device.js";
import { BufferPool } from "./buffer-pool.js";
import type { CopyOptions } from "./copy-disk.js";
import type { JoinedDisk } from "./joined-disk.js";
import { dataSpans } from "./zero-scan.js";

/** Bytes that are read at once, unless a cluster is larger. */
const PIECE_BYTES = 512 * KiB;
/** Pieces in flight: work for every processor while others are being read or written. */
const PIECES = 8;

/**
 * Copies `source` to a new, empty `target`, each cluster stored compressed where that makes it smaller. A cluster of zeros is
 * not stored. Several clusters are compressed at once. Fails as `copyDisk` does.
 */
export async function copyCompressed(
  source: JoinedDisk,
  target: BlockDevice,
  clusterSize: number,
  options: Pick<CopyOptions, "onProgress">,
): Promise<void> {
  const pieceSize = Math.max(PIECE_BYTES, clusterSize);
  const buffers = new BufferPool(PIECES, pieceSize);
  let failure: { readonly error: unknown } | undefined;
  let done = 0;

  const store = async (offset: number, buffer: Uint8Array, length: number): Promise<void> => {
    try {
      const bytes = buffer.subarray(0, length);
      const wait = source.read(offset, bytes);
      if (isPromise(wait)) await wait;
      for (const { start, end } of dataSpans(bytes, offset, clusterSize)) {
        await target.writeCompressed(offset + start, bytes.subarray(start, end));
      }
    } catch (error) {
      failure ??= { error };
    } finally {
      buffers.give(buffer);
      done = Math.max(done, offset + length);
      options.onProgress?.(done, source.size);
    }
  };

  try {
    for await (const { offset, length } of piecesWithData(source, clusterSize, pieceSize)) {
      if (failure !== undefined) break;
      const buffer = buffers.takeNow() ?? (await buffers.take());
      void store(offset, buffer, length);
    }
  } finally {
    await buffers.allBack();
  }
  if (failure !== undefined) throw failure.error;
  options.onProgress?.(source.size, source.size);
}

/** Whole clusters that the source may have data in, at most `pieceSize` bytes together; the last one ends with the disk. */
async function* piecesWithData(
  source: JoinedDisk,
  clusterSize: number,
  pieceSize: number,
): AsyncGenerator<{ readonly offset: number; readonly length: number }> {
  let next = 0;
  for await (const extent of source.extents()) {
    if (extent.zero) continue;
    const first = Math.max(next, alignDown(extent.offset, clusterSize));
    next = Math.max(next, alignUp(extent.offset + extent.length, clusterSize));
    for (let offset = first; offset < next; offset += pieceSize) {
      yield { offset, length: Math.min(pieceSize, next - offset, source.size - offset) };
    }
  }
}
