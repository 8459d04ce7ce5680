/**
 * What each sector of a disk may hold after a crash.
 *
 * Positions count the calls that reached the storage (the length of the recorder's log). An operation of
 * the guest spans the positions it started and ended at; a crash at position p means that calls from p on never
 * happened, and that calls not covered by a storage flush may be lost, torn or reordered.
 *
 * A sector must then hold the newest state that was made durable, or any state that was begun later.
 */
export const SECTOR = 512;

interface SectorState {
  /** Position at which the operation began. */
  readonly start: number;
  /** Position at which it was acknowledged; Infinity when it failed, so that it never counts as done. */
  readonly end: number;
  /** Durable by itself once acknowledged (FUA). */
  readonly fua: boolean;
  readonly bytes: Uint8Array;
}

export interface Span {
  readonly start: number;
  readonly end: number;
  readonly fua?: boolean;
}

/** The flushes that were acknowledged, shared by all histories of one disk. */
export class FlushLog {
  readonly #spans: Span[] = [];

  add(span: Span): void {
    this.#spans.push(span);
  }

  /** Operations acknowledged up to this position must survive a crash at `position`; -1 = none. */
  durableUpTo(position: number): number {
    let result = -1;
    for (const flush of this.#spans) if (flush.end <= position) result = Math.max(result, flush.start);
    return result;
  }
}

/** What a workload tells about its requests. */
export interface DiskRecord {
  /** What a reader sees now. */
  readonly live: Uint8Array;
  changed(offset: number, bytes: Uint8Array, span: Span): void;
  zeroed(offset: number, length: number, span: Span): void;
  flushed(span: Span): void;
  /** True when a reader may see `bytes` now, `at` bytes into the sector. */
  mayShow(sector: number, at: number, bytes: Uint8Array): boolean;
}

/** The current bytes alone, for workloads without crashes and failures. */
export class LiveBytes implements DiskRecord {
  readonly live: Uint8Array;

  constructor(size: number) {
    this.live = new Uint8Array(size);
  }

  changed(offset: number, bytes: Uint8Array): void {
    this.live.set(bytes, offset);
  }

  zeroed(offset: number, length: number): void {
    this.live.fill(0, offset, offset + length);
  }

  flushed(): void {}

  mayShow(): boolean {
    return false;
  }
}

const ZERO_SECTOR = new Uint8Array(SECTOR);

export class SectorHistory implements DiskRecord {
  readonly size: number;
  /** What a reader sees now. Sectors touched by a failed operation hold one of several states. */
  readonly live: Uint8Array;
  readonly #sectors = new Map<number, SectorState[]>();
  readonly #flushes: FlushLog;
  /** Content at position 0, durable. */
  readonly #initial: Uint8Array | undefined;

  constructor(size: number, initial?: Uint8Array, flushes = new FlushLog()) {
    this.size = size;
    this.#flushes = flushes;
    this.live = new Uint8Array(size);
    if (initial !== undefined) this.live.set(initial.subarray(0, size));
    this.#initial = initial?.slice(0, size);
  }

  /** A change of guest bytes that was acknowledged (or failed: `span.end` is Infinity). */
  changed(offset: number, bytes: Uint8Array, span: Span): void {
    this.live.set(bytes, offset);
    const last = Math.floor((offset + bytes.length - 1) / SECTOR);
    for (let sector = Math.floor(offset / SECTOR); sector <= last; sector++) {
      const state = {
        start: span.start,
        end: span.end,
        fua: span.fua ?? false,
        bytes: this.#at(this.live, sector).slice(),
      };
      const states = this.#sectors.get(sector);
      if (states === undefined) this.#sectors.set(sector, [state]);
      else states.push(state);
    }
  }

  zeroed(offset: number, length: number, span: Span): void {
    this.changed(offset, new Uint8Array(length), span);
  }

  flushed(span: Span): void {
    this.#flushes.add(span);
  }

  /** True when a reader may see `bytes` in this sector after a crash at `position`. */
  allows(
    sector: number,
    bytes: Uint8Array,
    position: number,
    durableUpTo = this.#flushes.durableUpTo(position),
  ): boolean {
    const states = this.#sectors.get(sector);
    if (states === undefined) return equalBytes(bytes, this.#first(sector));
    let durable = -1;
    for (let i = states.length - 1; i >= 0; i--) {
      const state = states[i] as SectorState;
      if (state.end <= durableUpTo || (state.fua && state.end <= position)) {
        durable = i;
        break;
      }
    }
    if (durable === -1 && equalBytes(bytes, this.#first(sector))) return true;
    for (let i = Math.max(durable, 0); i < states.length; i++) {
      const state = states[i] as SectorState;
      if ((i === durable || state.start < position) && equalBytes(bytes, state.bytes)) return true;
    }
    return false;
  }

  /**
   * True when a reader may see `bytes` now, at `at` bytes into the sector: the newest state, or, after failed
   * operations, any state since the last one that succeeded.
   */
  mayShow(sector: number, at: number, bytes: Uint8Array): boolean {
    const states = this.#sectors.get(sector) ?? [];
    for (const state of states.toReversed()) {
      if (equalBytes(state.bytes.subarray(at, at + bytes.length), bytes)) return true;
      if (state.end !== Number.POSITIVE_INFINITY) return false;
    }
    return equalBytes(this.#first(sector).subarray(at, at + bytes.length), bytes);
  }

  /** Compares a whole disk read after a crash at `position`; one line per wrong sector, at most `limit`. */
  judge(actual: Uint8Array, position: number, limit = 5): string[] {
    const problems: string[] = [];
    const durableUpTo = this.#flushes.durableUpTo(position);
    const sectors = Math.ceil(this.size / SECTOR);
    for (let sector = 0; sector < sectors && problems.length < limit; sector++) {
      const bytes = this.#at(actual, sector);
      if (!this.allows(sector, bytes, position, durableUpTo)) problems.push(this.#explain(sector, bytes, position));
    }
    return problems;
  }

  #explain(sector: number, bytes: Uint8Array, position: number): string {
    const states = this.#sectors.get(sector) ?? [];
    const known = states.map((state) => `${state.start}..${state.end} ${hex(state.bytes)}`).join("; ");
    const flushed = this.#flushes.durableUpTo(position);
    return `sector ${sector} holds ${hex(bytes)} after a crash at ${position} (flushed up to ${flushed}); states: ${known}`;
  }

  #first(sector: number): Uint8Array {
    return this.#initial === undefined
      ? ZERO_SECTOR.subarray(0, this.#length(sector))
      : this.#at(this.#initial, sector);
  }

  #length(sector: number): number {
    return Math.min(SECTOR, this.size - sector * SECTOR);
  }

  #at(from: Uint8Array, sector: number): Uint8Array {
    return from.subarray(sector * SECTOR, sector * SECTOR + this.#length(sector));
  }
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && Buffer.compare(a, b) === 0;
}

export function isAllZero(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes, new Uint8Array(bytes.length)) === 0;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.subarray(0, 8)).toString("hex") + (isAllZero(bytes) ? " (zeros)" : "");
}
