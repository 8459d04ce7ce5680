import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { KiB } from "../../base/units.js";
import { entryHigh, entryLow, ZERO_LOW } from "./entries.js";
import { freeRun } from "./freed-runs.js";
import type { ImageState } from "./image-state.js";
import { TABLE_ENTRY_BYTES } from "./limits.js";
import type { MappingRun } from "./mapping.js";
import type { TableSlice } from "./table-cache.js";

/**
 * Changes of the mapping that bring no data: discard and write zeroes, by whole clusters.
 *
 * `discard-hint`: what the stock tool does with a guest's discard. Version 3: data and preallocated clusters
 * become plain zero clusters, the rest stays; version 2: the mapping goes away.
 * `forget`: the mapping goes away in any version; over a backing file it leaves zero clusters instead.
 * `zero-keep`, `zero-unmap`: version 3 zero flags, host clusters kept in place or given back.
 * `rezero-keep`, `rezero-unmap`: the same, but only for clusters that read as zeros already.
 */
export type Erasure = "discard-hint" | "forget" | "zero-keep" | "zero-unmap" | "rezero-keep" | "rezero-unmap";

/** What an erased cluster's entry becomes: "keep" leaves it as it is. */
type Outcome = "keep" | "unallocated" | "zero" | "zero-preallocated";

/** Erases guest clusters [first, first + count). Host clusters that are given up are freed after the next flush. */
export async function eraseClusters(state: ImageState, first: number, count: number, erasure: Erasure): Promise<void> {
  const { map, geometry, frees, writeBack } = state;
  const end = first + count;
  for (let cluster = first; cluster < end; ) {
    const index = map.l1Index(cluster);
    const tableEnd = Math.min(end, map.firstCluster(index + 1));
    const wholeTable = tableEnd - cluster === geometry.l2Entries;
    if (map.tableAt(index) === 0 && (wholeTable || !leavesMarks(erasure)) && !hidesBacking(state)) {
      cluster = tableEnd;
      continue;
    }
    const sliceEnd = Math.min(tableEnd, cluster + map.clustersToSliceEnd(cluster));
    await eraseInSlice(state, cluster, sliceEnd - cluster, erasure);
    cluster = sliceEnd;
    if (frees.isOverdue) await writeBack.flush(true);
  }
}

/** Zero clusters are written even where nothing is mapped. */
function leavesMarks(erasure: Erasure): boolean {
  return erasure !== "discard-hint" && erasure !== "forget";
}

function hidesBacking(state: ImageState): boolean {
  return state.old.backing !== undefined;
}

async function eraseInSlice(state: ImageState, first: number, count: number, erasure: Erasure): Promise<void> {
  const { map, reservations, tables, writeBack } = state;
  const index = map.l1Index(first);
  for (;;) {
    const other = reservations.find(first, count);
    if (other !== undefined) {
      await other.finished;
      continue;
    }
    const before = map.tableAt(index);
    if (before !== 0 && !map.isTableCopied(index) && !(await needsChange(state, before, first, count, erasure))) return;
    const table = await tables.writable(index);
    const acquired = map.acquire(table, first);
    const slice = isPromise(acquired) ? await acquired : acquired;
    let done = false;
    let room = true;
    try {
      if (reservations.find(first, count) === undefined) {
        const changes = outcomes(state, slice, first, count, erasure);
        room = changes.length === 0 || map.cache.mayEdit(slice);
        if (room) {
          apply(state, slice, changes);
          done = true;
        }
      }
    } finally {
      map.cache.release(slice);
    }
    if (done) return;
    if (!room) await writeBack.flush(true);
  }
}

async function needsChange(
  state: ImageState,
  table: number,
  first: number,
  count: number,
  erasure: Erasure,
): Promise<boolean> {
  const slice = await state.map.acquire(table, first);
  try {
    return outcomes(state, slice, first, count, erasure).length > 0;
  } finally {
    state.map.cache.release(slice);
  }
}

interface Change {
  readonly cluster: number;
  readonly run: MappingRun;
  readonly outcome: Outcome;
}

/** What has to change in the slice, without changing it. */
function outcomes(state: ImageState, slice: TableSlice, first: number, count: number, erasure: Erasure): Change[] {
  const changes: Change[] = [];
  for (let done = 0; done < count; ) {
    const run = state.map.runAt(slice, first + done, count - done);
    const outcome = outcomeOf(state, run, erasure);
    if (outcome !== "keep") changes.push({ cluster: first + done, run, outcome });
    done += run.count;
  }
  return changes;
}

function outcomeOf(state: ImageState, run: MappingRun, erasure: Erasure): Outcome {
  const hasHost = run.kind === "data" || run.kind === "zero-preallocated" || run.kind === "compressed";
  switch (erasure) {
    case "discard-hint":
      if (!hasHost && !(run.kind === "unallocated" && hidesBacking(state))) return "keep";
      return state.geometry.version === 3 ? "zero" : "unallocated";
    case "forget":
      if (run.kind === "unallocated" && !hidesBacking(state)) return "keep";
      if (hidesBacking(state)) return run.kind === "zero" ? "keep" : "zero";
      return "unallocated";
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

function apply(state: ImageState, slice: TableSlice, changes: readonly Change[]): void {
  if (changes.length === 0) return;
  const { map, geometry } = state;
  map.cache.edit(slice);
  for (const { cluster, run, outcome } of changes) {
    const host = run.kind === "data" || run.kind === "zero-preallocated" ? run.host : undefined;
    const copied = run.kind === "data" && run.copied;
    let at = map.entryAt(cluster);
    for (let i = 0; i < run.count; i++) {
      const keeps = outcome === "zero-preallocated" && host !== undefined;
      const offset = keeps ? host + i * geometry.clusterSize : 0;
      slice.view.setUint32(at, keeps ? entryHigh(offset, copied) : 0);
      slice.view.setUint32(at + 4, keeps ? entryLow(offset, true) : outcome === "zero" ? ZERO_LOW : 0);
      at += TABLE_ENTRY_BYTES;
    }
    if (outcome !== "zero-preallocated") freeRun(state, run, run.count);
  }
}

/** A discard: clusters that lie only partly in the range stay as they are, but the end of the disk ends a cluster. */
export async function discard(state: ImageState, offset: number, length: number, erasure: Erasure): Promise<void> {
  const { clusterSize, size } = state.geometry;
  const first = Math.ceil(offset / clusterSize);
  const end = offset + length;
  const past = end === size ? Math.ceil(end / clusterSize) : Math.floor(end / clusterSize);
  if (past > first) await eraseClusters(state, first, past - first, erasure);
}

const ZEROS = new Uint8Array(256 * KiB);

/**
 * Makes [offset, offset + length) read as zeros. `write` stores bytes; it serves the parts of clusters at
 * both ends whose other part holds data. Where the other part reads as zeros too, the whole cluster is erased.
 */
export async function writeZeroes(
  state: ImageState,
  offset: number,
  length: number,
  unmap: boolean,
  write: (offset: number, data: Uint8Array) => MaybePromise<void>,
): Promise<void> {
  const { clusterSize, size, version } = state.geometry;
  const erasure = version === 2 ? "discard-hint" : unmap ? "zero-unmap" : "zero-keep";
  const end = offset + length;
  const first = Math.ceil(offset / clusterSize);
  const past = end === size ? Math.ceil(end / clusterSize) : Math.floor(end / clusterSize);
  const head = Math.min(end, first * clusterSize);
  if (head > offset) await zeroPart(state, offset, head - offset, erasure, write);
  if (past > first) await eraseClusters(state, first, past - first, erasure);
  const tail = Math.max(head, past * clusterSize);
  if (end > tail) await zeroPart(state, tail, end - tail, erasure, write);
}

/**
 * Zeroes a part of one cluster. A cluster that reads as zeros becomes a zero cluster whole; the look and the change are
 * one turn, so that data which another request puts into the other part is never lost.
 */
async function zeroPart(
  state: ImageState,
  offset: number,
  length: number,
  erasure: Erasure,
  write: (offset: number, data: Uint8Array) => MaybePromise<void>,
): Promise<void> {
  const cluster = Math.floor(offset / state.geometry.clusterSize);
  if (erasure === "zero-keep") await eraseClusters(state, cluster, 1, "rezero-keep");
  if (erasure === "zero-unmap") await eraseClusters(state, cluster, 1, "rezero-unmap");
  if (await readsAsZeros(state, cluster)) return;
  for (let at = offset; at < offset + length; ) {
    // Pieces end at multiples of their size, so that no sector is written in two parts.
    const next = Math.min(offset + length, at + ZEROS.length - (at % ZEROS.length));
    await write(at, ZEROS.subarray(0, next - at));
    at = next;
  }
}

/** Whether the mapping says so, when no write to the cluster is under way. */
async function readsAsZeros(state: ImageState, cluster: number): Promise<boolean> {
  const { map, reservations } = state;
  for (let other = reservations.find(cluster, 1); other !== undefined; other = reservations.find(cluster, 1)) {
    await other.finished;
  }
  const table = map.tableAt(map.l1Index(cluster));
  if (table === 0) return state.old.unmappedIsZero(cluster * state.geometry.clusterSize);
  const slice = await map.acquire(table, cluster);
  try {
    return state.old.isZero(map.runAt(slice, cluster, 1), cluster);
  } finally {
    map.cache.release(slice);
  }
}
