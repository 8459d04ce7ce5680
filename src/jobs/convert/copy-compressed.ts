import { alignDown, alignUp } from "../../base/integers.js";
import { MiB } from "../../base/units.js";
import type { BlockDevice } from "../../block/block-device.js";
import { BufferPool } from "./buffer-pool.js";
import type { CopyOptions } from "./copy-disk.js";
import type { JoinedDisk } from "./joined-disk.js";
import { isZero } from "./zero-scan.js";

/** Memory for clusters on their way. */
const BUFFER_BYTES = 16 * MiB;
const MOST_CLUSTERS = 64;

/**
 * Copies `source` to a new, empty `target` cluster by cluster, each stored compressed where that makes it smaller. A
 * cluster of zeros is not stored. Several clusters are compressed at once. Fails as `copyDisk` does.
 */
export async function copyCompressed(
  source: JoinedDisk,
  target: BlockDevice,
  clusterSize: number,
  options: Pick<CopyOptions, "onProgress">,
): Promise<void> {
  const count = Math.max(2, Math.min(MOST_CLUSTERS, Math.floor(BUFFER_BYTES / clusterSize)));
  const buffers = new BufferPool(count, clusterSize);
  let failure: { readonly error: unknown } | undefined;
  let done = 0;

  const store = async (offset: number, buffer: Uint8Array, length: number): Promise<void> => {
    try {
      const bytes = buffer.subarray(0, length);
      await source.read(offset, bytes);
      if (!isZero(bytes)) await target.writeCompressed(offset, bytes);
    } catch (error) {
      failure ??= { error };
    } finally {
      buffers.give(buffer);
      done = Math.max(done, offset + length);
      options.onProgress?.(done, source.size);
    }
  };

  try {
    for await (const offset of clustersWithData(source, clusterSize)) {
      if (failure !== undefined) break;
      const buffer = buffers.takeNow() ?? (await buffers.take());
      void store(offset, buffer, Math.min(clusterSize, source.size - offset));
    }
  } finally {
    await buffers.allBack();
  }
  if (failure !== undefined) throw failure.error;
  options.onProgress?.(source.size, source.size);
}

/** Offsets of the clusters that the source may have data in. */
async function* clustersWithData(source: JoinedDisk, clusterSize: number): AsyncGenerator<number> {
  let next = 0;
  for await (const extent of source.extents()) {
    if (extent.zero) continue;
    const first = Math.max(next, alignDown(extent.offset, clusterSize));
    next = alignUp(extent.offset + extent.length, clusterSize);
    for (let offset = first; offset < next; offset += clusterSize) yield offset;
  }
}
