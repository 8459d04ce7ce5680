import { alignDown, alignUp } from "../../base/integers.js";
import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { KiB } from "../../base/units.js";
import { entryHigh, entryLow, ZERO_LOW } from "./entries.js";
import { type EntryChange, type Erasure, hidesBacking, staysReserved } from "./erasure.js";
import { freeRun } from "./freed-runs.js";
import type { ImageState } from "./image-state.js";
import { isMapped, type MappingRun } from "./mapping.js";
import { extendedChanges } from "./subcluster-erasing.js";
import type { TableSlice } from "./table-cache.js";

/**
 * Changes of the mapping that bring no data: discard and write zeroes, by whole clusters, or by the subclusters of extended
 * entries (subcluster-erasing.ts); without those a cluster is its only subcluster.
 */

/** What an erased cluster's entry becomes: "keep" leaves it as it is. */
type Outcome = "keep" | "unallocated" | "zero" | "zero-preallocated";

/**
 * Erases guest subclusters [first, first + count). Host clusters that are given up are freed after the next flush. False when
 * a part of a compressed cluster was to become zeros, which an entry cannot say; then no entry of its slice has changed.
 */
export async function eraseSubclusters(
  state: ImageState,
  first: number,
  count: number,
  erasure: Erasure,
): Promise<boolean> {
  const { map, geometry, frees, writeBack } = state;
  const { subclusters, l2Entries } = geometry;
  const end = first + count;
  let done = true;
  for (let subcluster = first; subcluster < end; ) {
    const index = map.l1Index(Math.floor(subcluster / subclusters));
    const tableEnd = Math.min(end, map.firstCluster(index + 1) * subclusters);
    const wholeTable = tableEnd - subcluster === l2Entries * subclusters;
    if (map.tableAt(index) === 0 && (wholeTable || !leavesMarks(erasure)) && !hidesBacking(state)) {
      subcluster = tableEnd;
      continue;
    }
    const sliceEnd = Math.min(tableEnd, subcluster + map.subclustersToSliceEnd(subcluster));
    if (!(await eraseInSlice(state, subcluster, sliceEnd - subcluster, erasure))) done = false;
    if (!state.data.inImage) await eraseOutside(state, subcluster, sliceEnd - subcluster, erasure);
    subcluster = sliceEnd;
    if (frees.isOverdue) await writeBack.flush(true);
  }
  return done;
}

/**
 * The bytes of an external data file go after their mapping, and after the requests that found them by it. What is written
 * from now on overlaps the erasure in time; where that may concern other bytes of a cluster, nothing is to be erased.
 */
async function eraseOutside(state: ImageState, first: number, count: number, erasure: Erasure): Promise<void> {
  if (erasure === "rezero-keep" || erasure === "rezero-unmap") return;
  const { subclusterSize } = state.geometry;
  await state.requests.settled();
  const erased = state.data.erased(first * subclusterSize, count * subclusterSize, erasure !== "zero-keep");
  await state.requests.follow(erased);
  state.writeBack.unflushedData = true;
}

/** Zero clusters are written even where nothing is mapped. */
function leavesMarks(erasure: Erasure): boolean {
  return erasure !== "discard-hint" && erasure !== "forget" && erasure !== "reserve";
}

async function eraseInSlice(state: ImageState, first: number, count: number, erasure: Erasure): Promise<boolean> {
  const { map, reservations, tables, writeBack, geometry } = state;
  const { subclusters } = geometry;
  const firstCluster = Math.floor(first / subclusters);
  const index = map.l1Index(firstCluster);
  // Host clusters go whole.
  const start = firstCluster * subclusters;
  const around = alignUp(first + count, subclusters) - start;
  for (;;) {
    const other = reservations.find(start, around);
    if (other !== undefined) {
      await other.finished;
      continue;
    }
    const before = map.tableAt(index);
    if (before !== 0 && !map.isTableCopied(index) && !(await needsChange(state, before, first, count, erasure))) {
      return true;
    }
    const table = await tables.writable(index);
    const acquired = map.acquire(table, firstCluster);
    const slice = isPromise(acquired) ? await acquired : acquired;
    try {
      if (reservations.find(start, around) === undefined) {
        const changes = changesOf(state, slice, first, count, erasure);
        if (changes === undefined) return false;
        if (changes.length === 0) return true;
        if (map.cache.mayEdit(slice)) {
          map.cache.edit(slice);
          for (const change of changes) change(slice.view);
          return true;
        }
      } else {
        continue;
      }
    } finally {
      map.cache.release(slice);
    }
    await writeBack.flush(true);
  }
}

async function needsChange(
  state: ImageState,
  table: number,
  first: number,
  count: number,
  erasure: Erasure,
): Promise<boolean> {
  const slice = await state.map.acquire(table, Math.floor(first / state.geometry.subclusters));
  try {
    return changesOf(state, slice, first, count, erasure)?.length !== 0;
  } finally {
    state.map.cache.release(slice);
  }
}

/** What has to change in the slice, without changing it; undefined when a part of a compressed cluster would have to be zeros. */
function changesOf(
  state: ImageState,
  slice: TableSlice,
  first: number,
  count: number,
  erasure: Erasure,
): EntryChange[] | undefined {
  if (state.map.isExtended) return extendedChanges(state, slice, first, count, erasure);
  const changes: EntryChange[] = [];
  for (let done = 0; done < count; ) {
    const cluster = first + done;
    const run = state.map.runAt(slice, cluster, count - done);
    const outcome = outcomeOf(state, run, erasure);
    if (outcome !== "keep") changes.push((view) => apply(state, view, cluster, run, outcome));
    done += run.count;
  }
  return changes;
}

function outcomeOf(state: ImageState, run: MappingRun, erasure: Erasure): Outcome {
  const hasHost = isMapped(run) || run.kind === "compressed";
  switch (erasure) {
    case "discard-hint":
      if (!hasHost && !(run.kind === "unallocated" && hidesBacking(state))) return "keep";
      return state.geometry.version === 3 ? "zero" : "unallocated";
    case "forget":
      if (run.kind === "unallocated" && !hidesBacking(state)) return "keep";
      if (hidesBacking(state)) return run.kind === "zero" ? "keep" : "zero";
      return "unallocated";
    case "reserve":
      if (!staysReserved(state, run)) return outcomeOf(state, run, "forget");
      return run.kind === "data" ? "zero-preallocated" : "keep";
    case "zero-keep":
      if (run.kind === "data") return "zero-preallocated";
      return run.kind === "unallocated" || run.kind === "compressed" ? "zero" : "keep";
    case "rezero-keep":
      return run.kind === "unallocated" && !hidesBacking(state) ? "zero" : "keep";
    case "rezero-unmap":
      if (run.kind === "zero-preallocated") return "zero";
      return run.kind === "unallocated" && !hidesBacking(state) ? "zero" : "keep";
    case "zero-unmap":
      return run.kind === "zero" ? "keep" : "zero";
  }
}

function apply(
  state: ImageState,
  view: DataView,
  cluster: number,
  run: MappingRun,
  outcome: Exclude<Outcome, "keep">,
): void {
  const { map, geometry } = state;
  const host = isMapped(run) ? run.host : undefined;
  const copied = run.kind === "data" && run.copied;
  let at = map.entryAt(cluster);
  for (let i = 0; i < run.count; i++) {
    const keeps = outcome === "zero-preallocated" && host !== undefined;
    const offset = keeps ? host + i * geometry.clusterSize : 0;
    view.setUint32(at, keeps ? entryHigh(offset, copied) : 0);
    view.setUint32(at + 4, keeps ? entryLow(offset, true) : outcome === "zero" ? ZERO_LOW : 0);
    at += geometry.l2EntrySize;
    state.latePadding.drop(cluster + i);
  }
  if (outcome !== "zero-preallocated") freeRun(state, run, run.count);
}

/**
 * A discard: clusters, with extended entries subclusters, that lie only partly in the range stay as they are, but the end
 * of the disk ends a cluster.
 */
export async function discard(state: ImageState, offset: number, length: number, erasure: Erasure): Promise<void> {
  // Version 2 has no zero clusters, and without a mapping the backing image would show.
  if (state.geometry.version === 2 && hidesBacking(state)) return;
  const first = Math.ceil(offset / state.geometry.subclusterSize);
  const past = wholeSubclustersTo(state, offset + length);
  if (past > first) await eraseSubclusters(state, first, past - first, erasure);
}

/** The subcluster behind the last one that ends at guest offset `end` or before it. The end of the disk ends a cluster. */
function wholeSubclustersTo(state: ImageState, end: number): number {
  const { clusterSize, subclusters, subclusterSize } = state.geometry;
  return end === state.end ? Math.ceil(end / clusterSize) * subclusters : Math.floor(end / subclusterSize);
}

/** Stores bytes at a guest offset. */
type ZeroWriter = (offset: number, data: Uint8Array) => MaybePromise<void>;

const ZEROS = new Uint8Array(256 * KiB);

/**
 * Makes [offset, offset + length) read as zeros. `write` stores bytes; it serves the parts of subclusters at
 * both ends whose other part holds data. Where the other part reads as zeros too, the whole subcluster is erased.
 */
export async function writeZeroes(
  state: ImageState,
  offset: number,
  length: number,
  unmap: boolean,
  write: ZeroWriter,
): Promise<void> {
  const { subclusterSize, version } = state.geometry;
  if (version === 2 && hidesBacking(state)) return writeZeros(offset, offset + length, write);
  const erasure = version === 2 ? "discard-hint" : unmap ? "zero-unmap" : "zero-keep";
  const end = offset + length;
  const first = Math.ceil(offset / subclusterSize);
  const past = wholeSubclustersTo(state, end);
  const head = Math.min(end, first * subclusterSize);
  if (head > offset) await zeroPart(state, offset, head - offset, erasure, write);
  if (past > first) await zeroWhole(state, first, past, erasure, write);
  const tail = Math.max(head, past * subclusterSize);
  if (end > tail) await zeroPart(state, tail, end - tail, erasure, write);
}

/** Zeroes the subclusters [first, past): where an entry can say so by the entry, in parts of compressed clusters by zeros. */
async function zeroWhole(
  state: ImageState,
  first: number,
  past: number,
  erasure: Erasure,
  write: ZeroWriter,
): Promise<void> {
  const { subclusters, subclusterSize } = state.geometry;
  const headEnd = Math.min(past, alignUp(first, subclusters));
  const tailStart = Math.max(headEnd, alignDown(past, subclusters));
  for (const [from, to] of [
    [first, headEnd],
    [headEnd, tailStart],
    [tailStart, past],
  ] as const) {
    if (from === to || (await eraseSubclusters(state, from, to - from, erasure))) continue;
    await writeZeros(from * subclusterSize, Math.min(state.end, to * subclusterSize), write);
  }
}

/**
 * Zeroes a part of one subcluster. One that reads as zeros is marked so whole; the look and the change are
 * one turn, so that data which another request puts into the other part is never lost.
 */
async function zeroPart(
  state: ImageState,
  offset: number,
  length: number,
  erasure: Erasure,
  write: ZeroWriter,
): Promise<void> {
  const subcluster = Math.floor(offset / state.geometry.subclusterSize);
  if (erasure === "zero-keep") await eraseSubclusters(state, subcluster, 1, "rezero-keep");
  if (erasure === "zero-unmap") await eraseSubclusters(state, subcluster, 1, "rezero-unmap");
  if (!(await readsAsZeros(state, subcluster))) await writeZeros(offset, offset + length, write);
}

async function writeZeros(from: number, end: number, write: ZeroWriter): Promise<void> {
  for (let at = from; at < end; ) {
    // Pieces end at multiples of their size, so that no sector is written in two parts.
    const next = Math.min(end, at + ZEROS.length - (at % ZEROS.length));
    await write(at, ZEROS.subarray(0, next - at));
    at = next;
  }
}

/** Whether the mapping says so, when no write to the cluster is under way. */
async function readsAsZeros(state: ImageState, subcluster: number): Promise<boolean> {
  const { map, reservations, geometry } = state;
  const { subclusters, subclusterSize } = geometry;
  const cluster = Math.floor(subcluster / subclusters);
  for (;;) {
    const other = reservations.find(subcluster, 1);
    if (other === undefined) break;
    await other.finished;
  }
  const table = map.tableAt(map.l1Index(cluster));
  if (table === 0) return state.old.unmappedIsZero(subcluster * subclusterSize);
  const slice = await map.acquire(table, cluster);
  try {
    return state.old.isZero(map.runAt(slice, subcluster, 1), subcluster);
  } finally {
    map.cache.release(slice);
  }
}
