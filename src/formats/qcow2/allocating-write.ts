import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { type Placement, writePlacement } from "./cow.js";
import { entryHigh, entryLow } from "./entries.js";
import { freeRun } from "./freed-runs.js";
import type { ImageState } from "./image-state.js";
import type { Reservation } from "./in-flight.js";
import { LARGEST_L2_ENTRY_BYTES, TABLE_ENTRY_BYTES } from "./limits.js";
import type { MappingRun } from "./mapping.js";
import type { TableSlice } from "./table-cache.js";

/** A part of a request that is under way. */
interface Step {
  /** Guest bytes it covers. */
  readonly length: number;
  readonly work: Promise<void>;
}

/** What a step found: how many guest clusters, and where their data goes. */
interface Plan {
  readonly reservation: Reservation;
  readonly run: MappingRun;
}

/**
 * Writes `from` at guest `offset`, allocating what is not there. The request is cut into steps, each within one L2
 * slice and contiguous in the file; steps are set up one after the other and write their data in parallel.
 *
 * A step: reserve the guest clusters, allocate host clusters, write data and what surrounds it, change the L2 entries,
 * end the reservation. When it fails nothing refers to the new clusters and they are given back.
 */
export async function writeAllocating(state: ImageState, offset: number, from: Uint8Array): Promise<void> {
  const running: Promise<void>[] = [];
  const failures: unknown[] = [];
  const note = (error: unknown): void => {
    failures.push(error);
  };
  try {
    for (let done = 0; done < from.length && failures.length === 0; ) {
      const step = await startStep(state, offset + done, from.subarray(done));
      done += step.length;
      running.push(step.work.catch(note));
    }
  } catch (error) {
    note(error);
  }
  await Promise.all(running);
  if (failures.length > 0) return state.fail(failures[0]);
}

async function startStep(state: ImageState, offset: number, data: Uint8Array): Promise<Step> {
  const { geometry, map, reservations, tables } = state;
  const cluster = Math.floor(offset / geometry.clusterSize);
  const inside = offset - cluster * geometry.clusterSize;
  const wanted = Math.min(Math.ceil((inside + data.length) / geometry.clusterSize), map.clustersToSliceEnd(cluster));
  for (;;) {
    const table = await tables.writable(map.l1Index(cluster));
    const acquired = map.acquire(table, cluster);
    const slice = isPromise(acquired) ? await acquired : acquired;
    const other = reservations.find(cluster, wanted);
    if (other !== undefined && other.first <= cluster) {
      map.cache.release(slice);
      await other.finished;
      continue;
    }
    let found: MappingRun | Plan;
    try {
      found = plan(state, slice, cluster, other === undefined ? wanted : other.first - cluster);
    } finally {
      map.cache.release(slice);
    }
    if (!("reservation" in found)) return startInPlace(state, found, offset, inside, data);
    return startAllocation(state, found, inside, data);
  }
}

/** Looks at the mapping and reserves the clusters, in one turn. Data that may be written in place needs no reservation. */
function plan(state: ImageState, slice: TableSlice, cluster: number, limit: number): MappingRun | Plan {
  const { map, reservations } = state;
  const run = map.runAt(slice, cluster, limit);
  if (run.kind === "data" && run.copied) return run;
  let count = run.count;
  if (isUnplacedZero(state, run, cluster)) {
    while (count < limit) {
      const next = map.runAt(slice, cluster + count, limit - count);
      if (!isUnplacedZero(state, next, cluster + count)) break;
      count += next.count;
    }
  }
  return { reservation: reservations.add(cluster, count), run };
}

/** Reads as zeros and has no host cluster: neighbours of this kind are written alike. */
function isUnplacedZero(state: ImageState, run: MappingRun, cluster: number): boolean {
  return (run.kind === "unallocated" || run.kind === "zero") && state.old.isZero(run, cluster);
}

function startInPlace(state: ImageState, run: MappingRun, guest: number, inside: number, data: Uint8Array): Step {
  if (run.kind !== "data") throw new Error("only data is written in place");
  const length = Math.min(data.length, run.count * state.geometry.clusterSize - inside);
  return { length, work: writeGuestData(state, run.host + inside, guest, data.subarray(0, length)) };
}

/** Writes guest data to clusters that are mapped already. */
async function writeGuestData(state: ImageState, host: number, guest: number, data: Uint8Array): Promise<void> {
  refuseMetadata(state, host, data.length);
  const wait = state.requests.follow(state.data.write(host, guest, data));
  if (isPromise(wait)) await wait;
  state.writeBack.unflushedData = true;
}

/** Host clusters for a plan. */
export interface Place {
  readonly host: number;
  readonly count: number;
  /** Allocated by this step: to be given back when it fails. */
  readonly allocated: boolean;
  readonly rest: Placement["rest"];
}

async function startAllocation(
  state: ImageState,
  { reservation, run }: Plan,
  inside: number,
  data: Uint8Array,
): Promise<Step> {
  const { clusterSize } = state.geometry;
  try {
    const place = await findPlace(state, run, reservation);
    const length = Math.min(data.length, place.count * clusterSize - inside);
    const work = finishAllocation(state, { reservation, run }, place, inside, data.subarray(0, length));
    return { length, work };
  } catch (error) {
    state.reservations.end(reservation);
    throw error;
  }
}

async function findPlace(state: ImageState, run: MappingRun, { first, count }: Reservation): Promise<Place> {
  if (run.kind === "zero-preallocated" && run.copied) {
    return { host: run.host, count: run.count, allocated: false, rest: "zero" };
  }
  const { offset, count: got, fresh } = await state.allocator.allocate(count, false);
  const empty = fresh && state.data.freshIsZero ? "fresh" : "zero";
  return { host: offset, count: got, allocated: true, rest: state.old.isZero(run, first) ? empty : "copy" };
}

function finishAllocation(
  state: ImageState,
  { reservation, run }: Plan,
  place: Place,
  inside: number,
  data: Uint8Array,
): Promise<void> {
  const { clusterSize } = state.geometry;
  const cluster = reservation.first;
  const placement = {
    host: place.host,
    cluster,
    guest: cluster * clusterSize,
    length: place.count * clusterSize,
    dataAt: inside,
    rest: place.rest,
    old: run,
  };
  return finishWritten(state, reservation, place, run, writeChecked(state, placement, data));
}

async function writeChecked(state: ImageState, placement: Placement, data: Uint8Array): Promise<void> {
  refuseMetadata(state, placement.host, placement.length);
  const wait = state.requests.follow(writePlacement(state.data, state.old, placement, data));
  if (isPromise(wait)) await wait;
}

/** Guest data in the image file never goes where metadata is. */
function refuseMetadata(state: ImageState, host: number, length: number): void {
  const violation = state.data.inImage ? state.owners.violation("guest data", host, length) : undefined;
  if (violation !== undefined) throw violation;
}

/** The second half of a step: when the data is `written`, changes the mapping; when that failed, gives the clusters back. */
export async function finishWritten(
  state: ImageState,
  reservation: Reservation,
  place: Place,
  old: MappingRun,
  written: MaybePromise<void>,
): Promise<void> {
  try {
    await written;
    state.writeBack.unflushedData = true;
    await link(state, reservation.first, place, old);
  } catch (error) {
    // When even that fails the clusters leak, which check repairs.
    if (place.allocated) await state.allocator.release(place.host, place.count).catch(() => undefined);
    throw error;
  } finally {
    state.reservations.end(reservation);
  }
}

/** Points the L2 entries at the new clusters. The last step, and it cannot fail half-way. */
async function link(state: ImageState, cluster: number, place: Place, old: MappingRun): Promise<void> {
  const slice = await acquireForEdit(state, cluster);
  linkClusters(state, slice, cluster, place);
  state.map.cache.release(slice);
  if (place.allocated) freeRun(state, old, place.count);
}

export function linkClusters(state: ImageState, slice: TableSlice, cluster: number, place: Place): void {
  let at = state.map.entryAt(cluster);
  const last = state.map.entryAt(cluster + place.count - 1);
  state.map.cache.edit(slice, at, Math.min(last + LARGEST_L2_ENTRY_BYTES, state.map.cache.sliceSize));
  for (let i = 0; i < place.count; i++) {
    const host = place.host + i * state.geometry.clusterSize;
    slice.view.setUint32(at, entryHigh(host, true));
    slice.view.setUint32(at + 4, entryLow(host, false));
    at += TABLE_ENTRY_BYTES;
  }
}

/** The slice that maps `cluster`, held, when the cache has room for it to become dirty. Its table is writable already. */
export async function acquireForEdit(state: ImageState, cluster: number): Promise<TableSlice> {
  const { map, writeBack } = state;
  for (;;) {
    const slice = await map.acquire(map.tableAt(map.l1Index(cluster)), cluster);
    if (map.cache.mayEdit(slice)) return slice;
    map.cache.release(slice);
    await writeBack.flush(true);
  }
}
