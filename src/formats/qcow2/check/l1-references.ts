import { TABLE_ENTRY_BYTES } from "../limits.js";
import { MAX_REVISITED_ENTRIES } from "./check-limits.js";
import type { CheckSession } from "./check-session.js";
import { l1Pieces } from "./l1-pieces.js";
import { countL2Table, type EntryToZero, hex64 } from "./l2-references.js";
import { SEEN_COPIED, SEEN_PLAIN } from "./reference-counts.js";
import { countRegion } from "./regions.js";
import { TableReader } from "./table-reader.js";

const TWO_32 = 0x1_0000_0000;
const OFFSET_HIGH = 0x00ff_ffff;
const RESERVED_HIGH = 0x7f00_0000;
const RESERVED_LOW = 0x1ff;

/** An L1 table somewhere in the file. `length` in entries. */
export interface L1Location {
  readonly offset: number;
  readonly length: number;
  /** The table of the live disk, not of a snapshot. */
  readonly active: boolean;
}

/** Walks L1 tables and the L2 tables under them. */
export class MappingWalk {
  readonly toZero: EntryToZero[] = [];
  readonly #session: CheckSession;
  /** For all L1 tables: there may be one for each of 65536 snapshots, and a reader has a large buffer. */
  readonly #readers: { readonly active: TableReader; readonly inactive: TableReader };
  #revisited = 0;

  constructor(session: CheckSession) {
    this.#session = session;
    const reader = (active: boolean): TableReader =>
      new TableReader(session, "check_refcounts_l2", (view, at, offset, l1Index) =>
        countL2Table(session, view, at, { offset, active, times: 1, l1Index }, this.toZero),
      );
    this.#readers = { active: reader(true), inactive: reader(false) };
  }

  /** Counts the L1 table, its L2 tables, and what they refer to. */
  async countL1(location: L1Location): Promise<void> {
    const session = this.#session;
    if (location.length === 0) return;
    const length = location.length * TABLE_ENTRY_BYTES;
    countRegion(session, location.offset, length);
    if (location.offset + length - session.fileLength >= session.geometry.clusterSize) {
      session.mappingDamaged = true;
      session.unreadReferences = "an L1 table reaches past the end of the file";
    }
    const reader = this.#readers[location.active ? "active" : "inactive"];
    for await (const { view, first, count } of l1Pieces(session, location, "check_refcounts_l1")) {
      for (let at = 0; at < count * TABLE_ENTRY_BYTES; at += TABLE_ENTRY_BYTES) {
        session.progress?.passEntry();
        const high = view.getUint32(at);
        const low = view.getUint32(at + 4);
        if (high === 0 && low === 0) continue;
        // Findings come in the order of the entries: what was asked for before a damaged entry is judged before it.
        if (this.#isDamaged(high, low)) await reader.flush();
        const offset = this.#judgeEntry(location, high, low);
        if (offset === undefined) continue;
        const wait = reader.ask(offset, first + at / TABLE_ENTRY_BYTES);
        if (wait) await wait;
      }
    }
    await reader.flush();
  }

  /** Reads every table that is still owed visits once, and counts it for all of them. */
  async settle(): Promise<void> {
    const session = this.#session;
    const reader = new TableReader(session, "check_refcounts_l2", (view, at, offset, times) =>
      countL2Table(session, view, at, { offset, active: false, times, l1Index: undefined }, this.toZero),
    );
    for (const [cluster, times] of session.visits.owed()) {
      const wait = reader.ask(cluster * session.geometry.clusterSize, times);
      if (wait) await wait;
    }
    await reader.flush();
  }

  #isDamaged(high: number, low: number): boolean {
    const offset = offsetOf(high, low);
    return isReserved(high, low) || this.#isMisplaced(offset);
  }

  #isMisplaced(offset: number): boolean {
    return offset % this.#session.geometry.clusterSize !== 0 || offset === 0 || offset >= this.#session.fileLength;
  }

  /** The offset of an L2 table to be read now, or undefined. */
  #judgeEntry(location: L1Location, high: number, low: number): number | undefined {
    const session = this.#session;
    const { clusterSize, l2Entries } = session.geometry;
    const offset = offsetOf(high, low);
    const reserved = isReserved(high, low);
    if (reserved) this.#corrupt(location, `ERROR found L1 entry with reserved bits set: ${hex64(high, low)}`);
    if (offset === 0) {
      // The stock tool reads the header as an L2 table.
      if (!reserved) this.#corrupt(location, `ERROR L1 entry has flags and no table: ${hex64(high, low)}`);
      session.unreadReferences = "an L1 entry is damaged";
      return undefined;
    }
    countRegion(session, offset, clusterSize);
    if (offset % clusterSize !== 0) {
      this.#corrupt(
        location,
        `ERROR l2_offset=${offset.toString(16)}: Table is not cluster aligned; L1 entry corrupted`,
      );
    }
    if (this.#isMisplaced(offset)) {
      session.mappingDamaged = true;
      session.flagsUncertain ||= location.active;
      session.unreadReferences = "an L1 entry points outside the file or between clusters";
      return undefined;
    }
    const cluster = offset / clusterSize;
    if (location.active) session.counts.see(cluster, high > 0x7fff_ffff ? SEEN_COPIED : SEEN_PLAIN);
    const visits = session.visits.visit(cluster);
    if (visits === 2 && location.active) {
      this.#corrupt(location, `ERROR L2 table offset=0x${offset.toString(16)}: used by more than one L1 entry`);
    }
    if (visits > 1) {
      this.#revisited += l2Entries;
      if (this.#revisited > MAX_REVISITED_ENTRIES) {
        session.visits.owe(cluster);
        session.flagsUncertain = true;
        return undefined;
      }
    }
    return offset;
  }

  #corrupt(location: L1Location, message: string): void {
    this.#session.mappingDamaged = true;
    this.#session.report(
      { kind: "l1-entry", severity: "corruption", structure: "L1 table", offset: location.offset },
      () => message,
    );
  }
}

function offsetOf(high: number, low: number): number {
  return (high & OFFSET_HIGH) * TWO_32 + ((low & ~0x1ff) >>> 0);
}

function isReserved(high: number, low: number): boolean {
  return (high & RESERVED_HIGH) !== 0 || (low & RESERVED_LOW) !== 0;
}
