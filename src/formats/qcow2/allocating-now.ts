import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { finishWritten, linkClusters, type Place } from "./allocating-write.js";
import { MERGE_LIMIT } from "./cow.js";
import { ZERO_LOW } from "./entries.js";
import type { ImageState } from "./image-state.js";
import type { MappingRun } from "./mapping.js";
import { storedMap } from "./subclusters.js";
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
  const { geometry, map, reservations, allocator, old } = state;
  const { clusterSize, subclusters, subclusterSize } = geometry;
  const cluster = Math.floor(offset / clusterSize);
  const inside = offset - cluster * clusterSize;
  const count = Math.ceil((inside + from.length) / clusterSize);
  const slice = map.peek(cluster);
  if (slice === undefined || !map.isTableCopied(map.l1Index(cluster)) || !map.cache.mayEdit(slice)) return false;
  if (count > map.clustersToSliceEnd(cluster)) return false;
  if (!isUnmapped(state, slice, cluster, count)) {
    return map.isExtended
      ? fillNow(state, slice, cluster, offset, from)
      : refillNow(state, slice, cluster, count, offset, from);
  }
  if (reservations.find(cluster * subclusters, count * subclusters) !== undefined) return false;
  const first = Math.floor(offset / subclusterSize);
  const parts = Math.ceil((offset + from.length) / subclusterSize) - first;
  const partial = from.length < parts * subclusterSize;
  // What surrounds the data must be zeros, and there already.
  if (partial && !(state.data.freshIsZero && old.unmappedIsZero(first * subclusterSize))) return false;
  const { inImage } = state.data;
  const host = inImage ? allocator.allocateNow(count, partial) : cluster * clusterSize;
  if (host === undefined) return false;
  const start = cluster * subclusters;
  const place: Place = {
    first,
    count: parts,
    host: host + (first - start) * subclusterSize,
    allocated: inImage,
    rest: "fresh",
  };
  return writeNow(state, slice, place, start, count * subclusters, offset, from);
}

/** What the short way replaces: nothing that has to be given back. */
const NOTHING: MappingRun = { kind: "unallocated", count: 0 };

/** Writes to a place that is decided on, and links it; when the storage takes its time, under a reservation. */
function writeNow(
  state: ImageState,
  slice: TableSlice,
  place: Place,
  reserveFrom: number,
  reserveCount: number,
  offset: number,
  from: Uint8Array,
): Promise<void> | undefined {
  let wait: MaybePromise<void>;
  try {
    wait = state.data.write(place.host + offset - place.first * state.geometry.subclusterSize, offset, from);
  } catch (error) {
    wait = Promise.reject(error);
  }
  if (isPromise(wait)) {
    const reservation = state.reservations.add(reserveFrom, reserveCount);
    return finishWritten(state, reservation, place, NOTHING, state.requests.follow(wait));
  }
  state.writeBack.unflushedData = true;
  linkClusters(state, slice, place);
  return undefined;
}

/**
 * Extended entries: whole subclusters of one cluster that has a host cluster of its own, not all of them stored yet. What
 * comes after the first piece of a cluster that is written in order.
 */
function fillNow(
  state: ImageState,
  slice: TableSlice,
  cluster: number,
  offset: number,
  from: Uint8Array,
): Promise<void> | undefined | false {
  const { geometry, map, reservations, data, owners } = state;
  const { clusterSize, subclusterSize } = geometry;
  const inside = offset - cluster * clusterSize;
  const isWhole = (inside | from.length) % subclusterSize === 0;
  if (!isWhole || inside + from.length > clusterSize) return false;
  const host = map.ownHostCluster(slice, cluster);
  const isOurs = data.inImage ? owners.ownerOf(host / clusterSize) === 0 : host === cluster * clusterSize;
  if (host === 0 || !isOurs) return false;
  const first = offset / subclusterSize;
  const count = from.length / subclusterSize;
  if (reservations.find(first, count) !== undefined) return false;
  const place: Place = { first, count, host: host + inside, allocated: false, rest: "zero" };
  return writeNow(state, slice, place, first, count, offset, from);
}

/** Clusters that are reserved in a row and read as zeros: what zones are written into that kept their space when they were reset. */
function refillNow(
  state: ImageState,
  slice: TableSlice,
  cluster: number,
  count: number,
  offset: number,
  from: Uint8Array,
): Promise<void> | undefined | false {
  const { geometry, map, reservations, data, owners } = state;
  const { clusterSize } = geometry;
  const length = count * clusterSize;
  const isWhole = from.length === length;
  if (!data.inImage || !(isWhole || length <= MERGE_LIMIT)) return false;
  const host = map.reservedHost(slice, cluster, count);
  if (host === 0 || reservations.find(cluster, count) !== undefined) return false;
  for (let i = 0; i < count; i++) if (owners.ownerOf(host / clusterSize + i) !== 0) return false;
  const place: Place = { first: cluster, count, host, allocated: false, rest: "zero" };
  if (isWhole) return writeNow(state, slice, place, cluster, count, offset, from);
  if (state.latePadding.isAllowed(offset) && offset === cluster * clusterSize) {
    const wait = writeNow(state, slice, place, cluster, count, offset, from);
    const last = (count - 1) * clusterSize;
    if (wait === undefined) state.latePadding.begin(cluster + count - 1, host + last, from.length - last);
    return wait;
  }
  // Not a byte of what was in the clusters before may show.
  const start = cluster * clusterSize;
  const padded = state.padding.around(from, offset - start, length);
  const wait = writeNow(state, slice, place, cluster, count, start, padded);
  if (wait === undefined) state.padding.giveBack(padded);
  return wait;
}

/** Nothing is mapped at these clusters of the slice; zero clusters without a host cluster count as such. */
export function isUnmapped(state: ImageState, slice: TableSlice, cluster: number, count: number): boolean {
  const { version, l2EntrySize, subclusters } = state.geometry;
  const highestUnmapped = version === 2 || subclusters > 1 ? 0 : ZERO_LOW;
  let at = state.map.entryAt(cluster);
  for (let i = 0; i < count; i++) {
    if (slice.view.getUint32(at) !== 0 || slice.view.getUint32(at + 4) > highestUnmapped) return false;
    if (subclusters > 1 && storedMap(slice.view, at) !== 0) return false;
    at += l2EntrySize;
  }
  return true;
}
