import { SECTOR_SIZE } from "../base/units.js";
import type { MemoryStorage } from "./memory-storage.js";
import type { StorageCallKind } from "./storage-call.js";

/** A change that was asked for. Offsets and lengths in bytes; moments as `RecordingStorage` counts them. */
export interface RecordedChange {
  readonly kind: Exclude<StorageCallKind, "read" | "flush">;
  readonly at: number;
  /** The new size for "truncate". */
  readonly length: number;
  /** What a "write" wrote. */
  readonly bytes?: Uint8Array;
  readonly started: number;
  /** undefined while in flight, and for ever when it failed. */
  completed: number | undefined;
}

/** A flush that was asked for; moments as `RecordingStorage` counts them. */
export interface RecordedFlush {
  readonly started: number;
  completed: number | undefined;
}

/** A source of numbers in [0, 1); seeded, so that a failure can be repeated. */
export type Random = () => number;

/** How far the cut of a crash may reach. */
export interface CrashOptions {
  readonly random: Random;
  /** Chance from 0 to 1 that a change that was not flushed is there. Default 0.5. */
  readonly keep?: number;
  /** Chance from 0 to 1 that a change that is there is there only in part, in units of 512 bytes. Default 0.25. */
  readonly tear?: number;
}

/** Changes of at most this many sectors are torn sector by sector, longer ones at one place. */
const FINE_TEAR_SECTORS = 512;

/**
 * Makes the images that power failures leave.
 *
 * Leaving out any set of the unflushed changes also covers every reordering of changes that do not overlap; where they do
 * overlap, an older change winning over a newer one is the newer one missing in those sectors, which tearing covers.
 */
export class CrashImages {
  readonly #initial: MemoryStorage;
  readonly #changes: readonly RecordedChange[];
  readonly #flushes: readonly RecordedFlush[];
  /** The initial bytes and the first `#settled` changes, all durable for cuts that keep `#settledBefore`. */
  #base: MemoryStorage;
  #settled = 0;
  #settledBefore = 0;

  /** `changes` in the order in which they started; both lists may grow later. */
  constructor(initial: MemoryStorage, changes: readonly RecordedChange[], flushes: readonly RecordedFlush[]) {
    this.#initial = initial;
    this.#base = initial.clone();
    this.#changes = changes;
    this.#flushes = flushes;
  }

  /** What power failing at `moment` leaves. Cheapest when asked for ascending moments. */
  at(moment: number, options: CrashOptions): MemoryStorage {
    const durableBefore = flushedUpTo(this.#flushes, moment);
    this.#settle(durableBefore);
    const image = this.#base.clone();
    for (const change of this.#changes.slice(this.#settled)) {
      if (change.started >= moment) break;
      if (isDurable(change, durableBefore)) {
        apply(image, change, 0, change.length);
      } else if (options.random() < (options.keep ?? 0.5)) {
        applyLoose(image, change, options);
      }
    }
    return image;
  }

  #settle(durableBefore: number): void {
    if (durableBefore < this.#settledBefore) {
      this.#base = this.#initial.clone();
      this.#settled = 0;
    }
    this.#settledBefore = durableBefore;
    for (;;) {
      const change = this.#changes[this.#settled];
      if (change === undefined || !isDurable(change, durableBefore)) return;
      apply(this.#base, change, 0, change.length);
      this.#settled++;
    }
  }
}

function isDurable(change: RecordedChange, durableBefore: number): boolean {
  return change.completed !== undefined && change.completed < durableBefore;
}

/** Changes that completed before this moment are durable: the latest start of a flush that completed before `moment`. */
function flushedUpTo(flushes: readonly RecordedFlush[], moment: number): number {
  let latest = 0;
  for (const { started, completed } of flushes) {
    if (completed !== undefined && completed < moment) latest = Math.max(latest, started);
  }
  return latest;
}

function applyLoose(image: MemoryStorage, change: RecordedChange, options: CrashOptions): void {
  const torn = change.kind !== "truncate" && options.random() < (options.tear ?? 0.25);
  if (!torn) {
    apply(image, change, 0, change.length);
    return;
  }
  const end = change.at + change.length;
  const firstSector = Math.floor(change.at / SECTOR_SIZE);
  const sectors = Math.ceil(end / SECTOR_SIZE) - firstSector;
  const applySectors = (from: number, to: number): void => {
    const start = Math.max((firstSector + from) * SECTOR_SIZE, change.at) - change.at;
    const stop = Math.min((firstSector + to) * SECTOR_SIZE, end) - change.at;
    apply(image, change, start, stop);
  };
  if (sectors > FINE_TEAR_SECTORS) {
    const cut = Math.floor(options.random() * sectors);
    if (options.random() < 0.5) applySectors(0, cut);
    else applySectors(cut, sectors);
    return;
  }
  for (let sector = 0; sector < sectors; sector++) {
    if (options.random() < 0.5) applySectors(sector, sector + 1);
  }
}

/** Applies the bytes [from, to) of the change. A memory storage is never late. */
function apply(image: MemoryStorage, change: RecordedChange, from: number, to: number): void {
  if (change.kind === "truncate") void image.truncate(change.length);
  else if (change.kind === "write")
    void image.write(change.at + from, (change.bytes ?? new Uint8Array()).subarray(from, to));
  else if (change.kind === "writeZeroes") void image.writeZeroes(change.at + from, to - from);
  else void image.discard(change.at + from, to - from);
}
