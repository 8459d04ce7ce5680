import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { type Placement, writePlacement } from "./cow.js";
import { entryHigh, entryLow } from "./entries.js";
import { freeRun } from "./freed-runs.js";
import type { ImageState } from "./image-state.js";
import type { Reservation } from "./in-flight.js";
import { isMapped, type MappedRun, type MappingRun } from "./mapping.js";
import { type ClusterRun, clusterStart, clustersTouched } from "./positions.js";
import { markStored } from "./subcluster-links.js";
import type { TableSlice } from "./table-cache.js";
import { type Allocation, planStep } from "./write-plan.js";

/** A part of a request that is under way. */
interface Step {
  /** Guest bytes it covers. */
  readonly length: number;
  readonly work: Promise<void>;
}

/**
 * Writes `from` at guest `offset`, allocating what is not there. The request is cut into steps, each within one L2
 * slice and contiguous in the file; steps are set up one after the other and write their data in parallel.
 *
 * A step: reserve the guest clusters, allocate host clusters, write data and what surrounds it, change the L2 entries,
 * end the reservation. When it fails nothing refers to the new clusters and they are given back.
 * With extended L2 entries a step reserves the subclusters that it fills in the host cluster they have.
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
  const { geometry, map, tables } = state;
  const { clusterSize, subclusterSize } = geometry;
  const cluster = Math.floor(offset / clusterSize);
  const subcluster = Math.floor(offset / subclusterSize);
  const touched = Math.ceil((offset + data.length) / subclusterSize) - subcluster;
  const wanted = Math.min(touched, map.subclustersToSliceEnd(subcluster));
  for (;;) {
    const table = await tables.writable(map.l1Index(cluster));
    const acquired = map.acquire(table, cluster);
    const slice = isPromise(acquired) ? await acquired : acquired;
    let plan: ReturnType<typeof planStep>;
    try {
      plan = planStep(state, slice, subcluster, wanted);
    } finally {
      map.cache.release(slice);
    }
    if (plan.kind === "in-place") return startInPlace(state, plan.run, subcluster, offset, data);
    if (plan.kind === "allocate") return startAllocation(state, plan, offset, data);
    await plan.finished;
  }
}

function startInPlace(state: ImageState, run: MappedRun, subcluster: number, offset: number, data: Uint8Array): Step {
  const { subclusterSize } = state.geometry;
  const inside = offset - subcluster * subclusterSize;
  const length = Math.min(data.length, run.count * subclusterSize - inside);
  return { length, work: writeGuestData(state, run.host + inside, offset, data.subarray(0, length)) };
}

/** Writes guest data to clusters that are mapped already. */
async function writeGuestData(state: ImageState, host: number, guest: number, data: Uint8Array): Promise<void> {
  refuseMetadata(state, host, data.length);
  const { latePadding } = state;
  const wait = state.requests.follow(state.data.write(host, guest, data));
  const filled = latePadding.isEmpty ? undefined : latePadding.wrote(guest, data.length);
  try {
    if (isPromise(wait)) await wait;
  } catch (error) {
    latePadding.failed(guest, data.length, host);
    throw error;
  }
  state.writeBack.unflushedData = true;
  if (filled !== undefined) await filled;
}

/** Where subclusters are written that were not stored there before. */
export interface Place {
  /** First guest subcluster. */
  readonly first: number;
  /** Subclusters. */
  readonly count: number;
  /** Where the first one goes. */
  readonly host: number;
  /** Its host clusters were allocated by this step: to be given back when it fails. */
  readonly allocated: boolean;
  readonly rest: Placement["rest"];
}

/** The host clusters that a place is in. */
function clustersOf({ geometry }: ImageState, { host, count }: Place): ClusterRun {
  return clustersTouched(host, count * geometry.subclusterSize, geometry);
}

async function startAllocation(state: ImageState, plan: Allocation, offset: number, data: Uint8Array): Promise<Step> {
  const { subclusterSize } = state.geometry;
  try {
    const place = await findPlace(state, plan);
    const dataAt = offset - plan.first * subclusterSize;
    const length = Math.min(data.length, place.count * subclusterSize - dataAt);
    const written = writeChecked(state, plan, place, dataAt, data.subarray(0, length));
    return { length, work: finishWritten(state, plan.reservation, place, plan.run, written) };
  } catch (error) {
    state.reservations.end(plan.reservation);
    throw error;
  }
}

async function findPlace(state: ImageState, { first, count, run, moves, reservation }: Allocation): Promise<Place> {
  const isZero = state.old.isZero(run, first);
  if (!state.data.inImage) {
    return {
      first,
      count,
      host: first * state.geometry.subclusterSize,
      allocated: false,
      rest: isZero ? "zero" : "copy",
    };
  }
  if (!moves && isMapped(run)) {
    return { first, count, host: run.host, allocated: false, rest: isZero ? "zero" : "copy" };
  }
  const { subclusters, subclusterSize } = state.geometry;
  const { offset, count: got, fresh } = await state.allocator.allocate(reservation.count / subclusters, false);
  const inside = first - reservation.first;
  return {
    first,
    count: Math.min(count, got * subclusters - inside),
    host: offset + inside * subclusterSize,
    allocated: true,
    rest: isZero ? (fresh && state.data.freshIsZero ? "fresh" : "zero") : "copy",
  };
}

async function writeChecked(
  state: ImageState,
  { run, others }: Allocation,
  place: Place,
  dataAt: number,
  data: Uint8Array,
): Promise<void> {
  const { subclusterSize } = state.geometry;
  const { host, first, rest } = place;
  const length = place.count * subclusterSize;
  refuseMetadata(state, host, length);
  const placement = { host, subcluster: first, guest: first * subclusterSize, length, dataAt, rest, old: run };
  const wait = state.requests.follow(writePlacement(state.data, state.old, placement, data));
  if (isPromise(wait)) await wait;
  if (others.length > 0) await moveOthers(state, others, place);
}

/** Copies what else is stored in the clusters that move. */
async function moveOthers(state: ImageState, others: Allocation["others"], place: Place): Promise<void> {
  const { subclusterSize, clusterSize } = state.geometry;
  const clusters = clustersOf(state, place);
  const end = (clusters.first + clusters.count) * clusterSize;
  for (const { first, run } of others) {
    const host = place.host + (first - place.first) * subclusterSize;
    // Fewer clusters may have been had than were planned.
    if (host >= end) continue;
    const bytes = new Uint8Array(run.count * subclusterSize);
    const read = state.requests.follow(state.old.read(run, first, 0, bytes));
    if (isPromise(read)) await read;
    const written = state.requests.follow(state.data.write(host, first * subclusterSize, bytes));
    if (isPromise(written)) await written;
  }
}

/** Guest data in the image file never goes where metadata is. */
export function refuseMetadata(state: ImageState, host: number, length: number): void {
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
    await link(state, place, old);
  } catch (error) {
    if (place.allocated) {
      const { first, count } = clustersOf(state, place);
      // When even that fails the clusters leak, which check repairs.
      await state.allocator.release(clusterStart(first, state.geometry), count).catch(() => undefined);
    }
    throw error;
  } finally {
    state.reservations.end(reservation);
  }
}

/** Points the L2 entries at the new clusters. The last step, and it cannot fail half-way. */
async function link(state: ImageState, place: Place, old: MappingRun): Promise<void> {
  const slice = await acquireForEdit(state, Math.floor(place.first / state.geometry.subclusters));
  linkClusters(state, slice, place);
  state.map.cache.release(slice);
  if (place.allocated) freeRun(state, old, clustersOf(state, place).count);
}

/** Points the L2 entries of a place, which lies within one slice, at its host clusters. The slice is edited. */
export function linkClusters(state: ImageState, slice: TableSlice, place: Place): void {
  const { map, geometry } = state;
  const { subclusters, l2EntrySize } = geometry;
  let at = map.entryAt(Math.floor(place.first / subclusters));
  const last = map.entryAt(Math.floor((place.first + place.count - 1) / subclusters));
  map.cache.edit(slice, at, last + l2EntrySize);
  if (map.isExtended) {
    markStored(map, slice, place, geometry);
    return;
  }
  for (let i = 0; i < place.count; i++) {
    const host = place.host + i * geometry.clusterSize;
    slice.view.setUint32(at, entryHigh(host, true));
    slice.view.setUint32(at + 4, entryLow(host, false));
    at += l2EntrySize;
    state.latePadding.drop(place.first + i);
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
