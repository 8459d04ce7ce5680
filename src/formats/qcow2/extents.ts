import { isPromise } from "../../base/maybe-promise.js";
import type { BlockExtent } from "../../block/block-device.js";
import type { ImageState } from "./image-state.js";
import type { MappingRun } from "./mapping.js";

/**
 * How the guest bytes [offset, offset + length) are stored, neighbours of one kind merged (data only where it is contiguous
 * in the file). A hole in L1 costs one step however much it covers.
 */
export async function* imageExtents(state: ImageState, offset: number, length: number): AsyncGenerator<BlockExtent> {
  const end = offset + length;
  let pending: BlockExtent | undefined;
  for await (const extent of rawExtents(state, offset, end)) {
    const merged: BlockExtent | undefined = pending === undefined ? extent : merge(pending, extent);
    if (merged === undefined && pending !== undefined) yield pending;
    pending = merged ?? extent;
  }
  if (pending !== undefined) yield pending;
}

async function* rawExtents(state: ImageState, offset: number, end: number): AsyncGenerator<BlockExtent> {
  const { map, geometry } = state;
  const { clusterSize } = geometry;
  const endCluster = Math.ceil(end / clusterSize);
  for (let at = offset; at < end; ) {
    const cluster = Math.floor(at / clusterSize);
    const index = map.l1Index(cluster);
    const table = map.tableAt(index);
    if (table === 0) {
      const next = Math.min(end, map.firstCluster(nextTable(state, index + 1, end)) * clusterSize);
      yield extentOf(state, { kind: "unallocated", count: 1 }, at, next - at, 0);
      at = next;
      continue;
    }
    const acquired = map.acquire(table, cluster);
    const slice = isPromise(acquired) ? await acquired : acquired;
    let run: MappingRun;
    try {
      run = map.runAt(slice, cluster, endCluster - cluster);
    } finally {
      map.cache.release(slice);
    }
    const next = Math.min(end, (cluster + run.count) * clusterSize);
    yield extentOf(state, run, at, next - at, at - cluster * clusterSize);
    at = next;
  }
}

/** The first L1 entry from `index` on that has a table, or one past the disk. */
function nextTable(state: ImageState, index: number, end: number): number {
  const { l1 } = state.map;
  const last = Math.min(l1.entries, Math.ceil(end / state.geometry.l2Coverage));
  let next = index;
  while (next < last && (l1.high(next) | l1.low(next)) === 0) next += 1;
  return next;
}

function extentOf(state: ImageState, run: MappingRun, offset: number, length: number, inside: number): BlockExtent {
  const hasHost = run.kind === "data" || run.kind === "zero-preallocated";
  const unbacked = state.header.current.backingFileName === undefined;
  return {
    offset,
    length,
    kind:
      run.kind === "unallocated"
        ? "unallocated"
        : run.kind === "zero" || run.kind === "zero-preallocated"
          ? "zero"
          : "data",
    hostOffset: hasHost ? run.host + inside : undefined,
    compressed: run.kind === "compressed",
    depth: 0,
    zero: run.kind === "zero" || run.kind === "zero-preallocated" || (run.kind === "unallocated" && unbacked),
  };
}

function merge(a: BlockExtent, b: BlockExtent): BlockExtent | undefined {
  if (a.kind !== b.kind || a.compressed !== b.compressed || a.zero !== b.zero) return undefined;
  const contiguous = a.hostOffset === undefined ? b.hostOffset === undefined : a.hostOffset + a.length === b.hostOffset;
  return contiguous ? { ...a, length: a.length + b.length } : undefined;
}
