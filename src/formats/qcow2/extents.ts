import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import type { BlockExtent } from "../../block/block-device.js";
import type { ImageState } from "./image-state.js";
import { isMapped, type MappingRun } from "./mapping.js";
import type { TableSlice } from "./table-cache.js";

/** Table entries looked at before other work gets its turn: a few milliseconds. */
const ENTRIES_PER_TURN = 2 ** 18;
/** What a step costs beside the entries it looks at, in entries. */
const STEP_COST = 64;

/**
 * How the guest bytes [offset, offset + length) are stored, neighbours of one kind merged (data only where it is contiguous
 * in the file). A hole in L1 costs one step however much it covers. A long walk lets other work in between.
 */
export async function* imageExtents(state: ImageState, offset: number, length: number): AsyncGenerator<BlockExtent> {
  const end = offset + length;
  let pending: BlockExtent | undefined;
  let cost = 0;
  for (let at = offset; at < end; ) {
    const found = extentAt(state, at, end);
    const extent = isPromise(found) ? await found : found;
    at = extent.offset + extent.length;
    const merged: BlockExtent | undefined = pending === undefined ? extent : merge(pending, extent);
    if (merged === undefined && pending !== undefined) yield pending;
    pending = merged ?? extent;
    cost += STEP_COST + Math.min(extent.length / state.geometry.clusterSize, state.geometry.l2Entries);
    if (cost < ENTRIES_PER_TURN) continue;
    cost = 0;
    await new Promise((resolve) => setImmediate(resolve));
  }
  if (pending !== undefined) yield pending;
}

/** The extent that starts at `at`, within one L2 slice or one hole of L1. */
function extentAt(state: ImageState, at: number, end: number): MaybePromise<BlockExtent> {
  const { map, geometry } = state;
  const cluster = Math.floor(at / geometry.clusterSize);
  const index = map.l1Index(cluster);
  const table = map.tableAt(index);
  if (table === 0) {
    const next = Math.min(end, map.firstCluster(nextTable(state, index + 1, end)) * geometry.clusterSize);
    return extentOf(state, { kind: "unallocated", count: 1 }, at, next - at, 0);
  }
  const acquired = map.acquire(table, cluster);
  return isPromise(acquired)
    ? acquired.then((slice) => extentInSlice(state, slice, at, end))
    : extentInSlice(state, acquired, at, end);
}

/** Releases `slice`, which maps `at`. */
function extentInSlice(state: ImageState, slice: TableSlice, at: number, end: number): BlockExtent {
  const { map, geometry } = state;
  const { subclusterSize } = geometry;
  const subcluster = Math.floor(at / subclusterSize);
  try {
    const run = map.runAt(slice, subcluster, Math.ceil(end / subclusterSize) - subcluster);
    const next = Math.min(end, (subcluster + run.count) * subclusterSize);
    return extentOf(state, run, at, next - at, at - subcluster * subclusterSize);
  } finally {
    map.cache.release(slice);
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

const EXTENT_KINDS: Readonly<Record<MappingRun["kind"], BlockExtent["kind"]>> = {
  unallocated: "unallocated",
  preallocated: "unallocated",
  zero: "zero",
  "zero-preallocated": "zero",
  data: "data",
  compressed: "data",
};

function extentOf(state: ImageState, run: MappingRun, offset: number, length: number, inside: number): BlockExtent {
  return {
    offset,
    length,
    kind: EXTENT_KINDS[run.kind],
    // Where bytes are not stored as the guest has them, their place is no help.
    hostOffset:
      isMapped(run) && (state.data.direct !== undefined || state.data.isUntreated === true)
        ? run.host + inside
        : undefined,
    ...(state.data.inImage ? {} : { file: state.data.storage.name }),
    compressed: run.kind === "compressed",
    depth: 0,
    zero: state.old.isZero(run, Math.floor(offset / state.geometry.subclusterSize)),
  };
}

function merge(a: BlockExtent, b: BlockExtent): BlockExtent | undefined {
  if (a.kind !== b.kind || a.compressed !== b.compressed || a.zero !== b.zero) return undefined;
  const contiguous = a.hostOffset === undefined ? b.hostOffset === undefined : a.hostOffset + a.length === b.hostOffset;
  return contiguous ? { ...a, length: a.length + b.length } : undefined;
}
