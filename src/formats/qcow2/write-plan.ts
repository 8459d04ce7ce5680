import { alignDown, alignUp } from "../../base/integers.js";
import type { ImageState } from "./image-state.js";
import type { Reservation } from "./in-flight.js";
import { isMapped, type MappedRun, type MappingRun } from "./mapping.js";
import type { TableSlice } from "./table-cache.js";

/** Guest subclusters from `first` on that are stored, as the mapping has them. */
interface StoredRun {
  readonly first: number;
  readonly run: MappedRun;
}

/** Subclusters that get host clusters, or are written for the first time in the one they have. Reserved. */
export interface Allocation {
  readonly kind: "allocate";
  readonly reservation: Reservation;
  /** First guest subcluster to be written whole, what is around the data included. */
  readonly first: number;
  /** Subclusters. */
  readonly count: number;
  /** The mapping from `first` on; of all of them, unless they read as zeros and have no host clusters. */
  readonly run: MappingRun;
  /** They get host clusters, instead of the ones they share or none. */
  readonly moves: boolean;
  /** Others that are stored in the first or the last cluster and move with them. */
  readonly others: readonly StoredRun[];
}

/** How the first part of a write is to be done. */
export type StepPlan =
  | Allocation
  /** Stored in clusters of its own: written where it is, which needs no reservation. */
  | { readonly kind: "in-place"; readonly run: MappedRun }
  /** Somebody else is about to change the mapping. */
  | { readonly kind: "wait"; readonly finished: Promise<void> };

/** Looks at the mapping from guest `subcluster` on, `limit` subclusters of it, and reserves what is to change, in one turn. */
export function planStep(state: ImageState, slice: TableSlice, subcluster: number, limit: number): StepPlan {
  const { map, reservations } = state;
  const other = reservations.find(subcluster, limit);
  if (other !== undefined && other.first <= subcluster) return { kind: "wait", finished: other.finished };
  const room = other === undefined ? limit : other.first - subcluster;
  const run = map.runAt(slice, subcluster, room);
  const stays = isMapped(run) && run.copied;
  if (stays && run.kind === "data") return { kind: "in-place", run };
  const count = isUnplacedZero(state, run, subcluster) ? unplacedZeros(state, slice, subcluster, room) : run.count;
  if (map.isExtended && !stays) return planMove(state, slice, subcluster, count, run);
  const reservation = reservations.add(subcluster, count);
  return { kind: "allocate", reservation, first: subcluster, count, run, moves: !stays, others: [] };
}

/** Reads as zeros and has no host cluster: neighbours of this kind are written alike. */
function isUnplacedZero(state: ImageState, run: MappingRun, subcluster: number): boolean {
  return (run.kind === "unallocated" || run.kind === "zero") && state.old.isZero(run, subcluster);
}

function unplacedZeros(state: ImageState, slice: TableSlice, first: number, limit: number): number {
  let count = 0;
  while (count < limit) {
    const next = state.map.runAt(slice, first + count, limit - count);
    if (!isUnplacedZero(state, next, first + count)) break;
    count += next.count;
  }
  return count;
}

/**
 * With extended entries: host clusters change whole, so whole clusters are reserved. What is stored around the subclusters
 * to be written moves too; where that is right beside them, as a part of the same write.
 */
function planMove(state: ImageState, slice: TableSlice, first: number, wanted: number, run: MappingRun): StepPlan {
  const { reservations, geometry } = state;
  const { subclusters } = geometry;
  const start = alignDown(first, subclusters);
  const busy = reservations.find(start, alignUp(first + wanted, subclusters) - start);
  if (busy !== undefined && busy.first < start + subclusters) return { kind: "wait", finished: busy.finished };
  const past = busy === undefined ? first + wanted : Math.min(first + wanted, alignDown(busy.first, subclusters));
  const end = alignUp(past, subclusters);
  const around = { first, past, run, others: [] as StoredRun[] };
  if (run.kind === "compressed") {
    around.first = start;
    around.past = end;
  } else if (isMapped(run)) {
    takeStored(state, slice, start, end, around);
  }
  const reservation = reservations.add(start, end - start);
  const count = around.past - around.first;
  return {
    kind: "allocate",
    reservation,
    first: around.first,
    count,
    run: around.run,
    moves: true,
    others: around.others,
  };
}

/** Finds what is stored in [start, end) before and after the range, and takes what touches stored subclusters into it. */
function takeStored(
  state: ImageState,
  slice: TableSlice,
  start: number,
  end: number,
  around: { first: number; past: number; run: MappingRun; others: StoredRun[] },
): void {
  const { map } = state;
  const { first, past } = around;
  const isStored = around.run.kind === "data";
  const visit = (at: number, run: MappingRun): void => {
    if (run.kind !== "data") return;
    if (isStored && at + run.count === first) around.first = at;
    else if (isStored && at === past) around.past = at + run.count;
    else around.others.push({ first: at, run });
  };
  for (const [from, to] of [
    [start, first],
    [past, end],
  ] as const) {
    for (let at = from; at < to; ) {
      const run = map.runAt(slice, at, to - at);
      visit(at, run);
      at += run.count;
    }
  }
  around.run = map.runAt(slice, around.first, around.past - around.first);
}
