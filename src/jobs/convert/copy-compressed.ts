import { alignDown, alignUp } from "../../base/integers.js";
import { isPromise } from "../../base/maybe-promise.js";
import { MiB } from "../../base/units.js";
import type { BlockDevice, BlockExtent } from "../../block/block-device.js";
import { BufferPool } from "./buffer-pool.js";
import type { CopyOptions } from "./copy-disk.js";
import { CopyPace } from "./copy-pace.js";
import type { JoinedDisk } from "./joined-disk.js";
import { dataSpans } from "./zero-scan.js";

/** Bytes that are read at once, unless a cluster is larger. */
const PIECE_BYTES = MiB;
/** Bytes in flight: enough for threads to go on with what is text while what is random only passes by. */
const BYTES_IN_FLIGHT = 16 * MiB;
const LEAST_PIECES = 4;

/**
 * Copies `source` to a new, empty `target`, each cluster stored compressed where that makes it smaller. A cluster of zeros is
 * not stored. Several clusters are compressed at once. Fails as `copyDisk` does.
 */
export async function copyCompressed(
  source: JoinedDisk,
  target: BlockDevice,
  clusterSize: number,
  options: CopyOptions,
): Promise<void> {
  const hasBacking = options.targetHasBacking === true;
  const writesZeros = hasBacking || !options.targetIsZero;
  const pace = new CopyPace(options.rate);
  const pieceSize = Math.max(PIECE_BYTES, clusterSize);
  const pieceCount = Math.max(LEAST_PIECES, Math.floor(BYTES_IN_FLIGHT / pieceSize));
  // Threads compress right from them.
  const buffers = new BufferPool(pieceCount, pieceSize, true);
  let failure: { readonly error: unknown } | undefined;
  let done = 0;

  const store = async (offset: number, buffer: Uint8Array, length: number): Promise<void> => {
    try {
      const bytes = buffer.subarray(0, length);
      const wait = source.readWithHoles(offset, bytes, options.onUnreadable);
      if (isPromise(wait)) await wait;
      let written = 0;
      for (const { start, end } of dataSpans(bytes, offset, clusterSize)) {
        if (writesZeros && start > written) await target.writeZeroes(offset + written, start - written);
        await target.writeCompressed(offset + start, bytes.subarray(start, end));
        written = end;
      }
      if (writesZeros && written < length) await target.writeZeroes(offset + written, length - written);
    } catch (error) {
      failure ??= { error };
    } finally {
      buffers.give(buffer);
      done = Math.max(done, offset + length);
      options.onProgress?.(done, source.size);
    }
  };

  try {
    const concerns = (extent: BlockExtent): boolean => (hasBacking ? extent.depth === 0 : writesZeros || !extent.zero);
    for await (const { offset, length } of pieces(source, concerns, clusterSize, pieceSize)) {
      if (failure !== undefined) break;
      await pace.spend(length);
      const buffer = buffers.takeNow() ?? (await buffers.take());
      void store(offset, buffer, length);
    }
  } finally {
    await buffers.allBack();
  }
  if (failure !== undefined) throw failure.error;
  options.onProgress?.(source.size, source.size);
}

/** Whole clusters with runs that matter, at most `pieceSize` bytes together; the last one ends with the disk. */
async function* pieces(
  source: JoinedDisk,
  concerns: (extent: BlockExtent) => boolean,
  clusterSize: number,
  pieceSize: number,
): AsyncGenerator<{ readonly offset: number; readonly length: number }> {
  let next = 0;
  for await (const extent of source.extents()) {
    if (!concerns(extent)) continue;
    const first = Math.max(next, alignDown(extent.offset, clusterSize));
    next = Math.max(next, alignUp(extent.offset + extent.length, clusterSize));
    for (let offset = first; offset < next; offset += pieceSize) {
      yield { offset, length: Math.min(pieceSize, next - offset, source.size - offset) };
    }
  }
}
