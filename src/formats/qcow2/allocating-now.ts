import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { finishWritten, linkClusters } from "./allocating-write.js";
import { ZERO_LOW } from "./entries.js";
import type { ImageState } from "./image-state.js";
import { TABLE_ENTRY_BYTES } from "./limits.js";
import type { TableSlice } from "./table-cache.js";

/**
 * The short way of an allocating write, in one turn and without a promise: the tables are in memory and writable, the
 * clusters are not mapped, the host clusters are free in a row, nothing around the data has to be written. Sequential
 * writes and appends go here nearly always. Same steps, same order as `writeAllocating`; `false`, with nothing changed, when
 * something would have to wait.
 */
export function writeAllocatingNow(
  state: ImageState,
  offset: number,
  from: Uint8Array,
): Promise<void> | undefined | false {
  const { geometry, map, reservations, allocator, writeBack } = state;
  const { clusterSize } = geometry;
  const cluster = Math.floor(offset / clusterSize);
  const inside = offset - cluster * clusterSize;
  const count = Math.ceil((inside + from.length) / clusterSize);
  const slice = map.peek(cluster);
  if (slice === undefined || !map.isTableCopied(map.l1Index(cluster)) || !map.cache.mayEdit(slice)) return false;
  if (count > map.clustersToSliceEnd(cluster) || !isUnmapped(state, slice, cluster, count)) return false;
  if (reservations.find(cluster, count) !== undefined) return false;
  const partial = from.length < count * clusterSize;
  // What surrounds the data must be zeros, and there already.
  if (partial && !(state.data.freshIsZero && state.old.unmappedIsZero(cluster * clusterSize))) return false;
  const host = allocator.allocateNow(count, partial);
  if (host === undefined) return false;
  const place = { host, count, allocated: true, rest: "fresh" } as const;
  let wait: MaybePromise<void>;
  try {
    wait = state.data.write(host + inside, offset, from);
  } catch (error) {
    wait = Promise.reject(error);
  }
  if (isPromise(wait)) {
    const reservation = reservations.add(cluster, count);
    return finishWritten(state, reservation, place, { kind: "unallocated", count }, state.requests.follow(wait));
  }
  writeBack.unflushedData = true;
  linkClusters(state, slice, cluster, place);
  return undefined;
}

/** Nothing is mapped at these clusters of the slice; zero clusters without a host cluster count as such. */
function isUnmapped(state: ImageState, slice: TableSlice, cluster: number, count: number): boolean {
  const highestUnmapped = state.geometry.version === 2 ? 0 : ZERO_LOW;
  let at = state.map.entryAt(cluster);
  for (let i = 0; i < count; i++) {
    if (slice.view.getUint32(at) !== 0 || slice.view.getUint32(at + 4) > highestUnmapped) return false;
    at += TABLE_ENTRY_BYTES;
  }
  return true;
}
