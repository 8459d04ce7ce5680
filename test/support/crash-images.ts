import type { RecordedChange, RecordedFlush } from "../../src/storage/crash-image.js";
import type { Random } from "./random.js";
import { SECTOR } from "./sector-history.js";

/**
 * What a disk may hold after the power went, given the recorded calls that changed it.
 *
 * Calls that completed before the start of a completed flush are there. Of the others every sector may have taken any
 * number of the changes made to it, in order, and independent of all other sectors: the disk wrote what it liked when
 * it liked, but a sector it writes is the sector as it was in its cache at some time.
 */
export interface CallHistory {
  readonly initial: Uint8Array;
  readonly changes: readonly RecordedChange[];
  readonly flushes: readonly RecordedFlush[];
}

/**
 * `killed`: only the process died, every call that completed is there. `flushed`: nothing after the last flush is.
 * `calls`: some whole calls are missing. `sectors`: some sectors of some calls are missing.
 */
export const CRASH_KINDS = ["killed", "flushed", "calls", "sectors"] as const;
export type CrashKind = (typeof CRASH_KINDS)[number];

/** The file after a crash at `moment` (as the recorder counts moments). */
export function crashedFile(history: CallHistory, moment: number, kind: CrashKind, random: Random): Uint8Array {
  const durableBefore = durableUpTo(history.flushes, moment);
  const chance = random.pick([0.1, 0.5, 0.9]);
  const disk = new Disk(history.initial);
  const lost = new Set<number>();
  for (const change of history.changes) {
    if (change.started >= moment) break;
    const completed = change.completed ?? Number.POSITIVE_INFINITY;
    if (completed < durableBefore || (kind === "killed" && completed < moment)) {
      disk.apply(change);
    } else if (kind !== "flushed") {
      const keep = random.chance(chance);
      if (change.kind === "truncate") {
        if (keep) disk.resize(change.length);
      } else {
        disk.applySome(change, lost, kind === "sectors" ? () => random.chance(chance) : () => keep);
      }
    }
  }
  return disk.bytes.slice(0, disk.size);
}

/** For each write of a header at the start of the file: the moment at which it may be there, and the first at which it is complete. */
export function momentsAroundHeaders({ changes }: Pick<CallHistory, "changes">): (readonly [number, number])[] {
  const headers = changes.filter(({ at, kind }) => at === 0 && kind === "write");
  return headers.map(({ started, completed = started }) => [started + 1, completed + 1]);
}

function durableUpTo(flushes: readonly RecordedFlush[], moment: number): number {
  let latest = 0;
  for (const { started, completed } of flushes) {
    if (completed !== undefined && completed < moment) latest = Math.max(latest, started);
  }
  return latest;
}

class Disk {
  bytes: Uint8Array;
  size: number;

  constructor(initial: Uint8Array) {
    this.bytes = initial.slice();
    this.size = initial.length;
  }

  resize(size: number): void {
    if (size > this.bytes.length) {
      const larger = new Uint8Array(Math.max(size, this.bytes.length * 2));
      larger.set(this.bytes.subarray(0, this.size));
      this.bytes = larger;
    }
    if (size < this.size) this.bytes.fill(0, size, this.size);
    this.size = size;
  }

  apply(change: RecordedChange): void {
    if (change.kind === "truncate") this.resize(change.length);
    else this.#put(change, change.at, change.at + change.length);
  }

  /** Applies the sectors that `keep` chooses; a sector that missed a change takes no later one. */
  applySome(change: RecordedChange, lost: Set<number>, keep: () => boolean): void {
    const end = change.at + change.length;
    for (let from = change.at; from < end; ) {
      const sector = Math.floor(from / SECTOR);
      const to = Math.min((sector + 1) * SECTOR, end);
      if (!lost.has(sector) && keep()) this.#put(change, from, to);
      else lost.add(sector);
      from = to;
    }
  }

  #put(change: RecordedChange, from: number, to: number): void {
    const end = change.kind === "discard" ? Math.min(to, this.size) : to;
    if (end <= from) return;
    if (end > this.size) this.resize(end);
    if (change.bytes === undefined) this.bytes.fill(0, from, end);
    else this.bytes.set(change.bytes.subarray(from - change.at, end - change.at), from);
  }
}
