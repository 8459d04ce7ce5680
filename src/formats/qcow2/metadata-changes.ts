import type { AddRecord, ChangeJournal, ChangeSource } from "../../storage/change-journal.js";
import { ChangedRanges } from "./changed-ranges.js";
import { JOURNAL_STAGE } from "./journal-stages.js";
import { TABLE_ENTRY_BYTES } from "./limits.js";
import type { Refcounts } from "./refcounts.js";
import type { RootTable } from "./root-table.js";
import type { TableCache, TableSlice } from "./table-cache.js";

/** Changes of one kind of table, by where they are on their way into the file. */
interface Tracker extends ChangeSource {
  /** A write-back takes what has changed. */
  freeze(): void;
  /** The write-back has ended; when it failed everything is as before it. */
  settle(durable: boolean): void;
}

type Ranges = Map<TableSlice, ChangedRanges>;

/** L2 tables or refcount blocks: the changed bytes of each slice. */
class SliceTracker implements Tracker {
  readonly #stage: number;
  /** Not in the journal yet. */
  #fresh: Ranges = new Map();
  /** In the journal, not taken by a write-back. */
  #unsaved: Ranges = new Map();
  #writing: Ranges = new Map();

  constructor(stage: number, cache: TableCache, journal: ChangeJournal) {
    this.#stage = stage;
    cache.onEdit = (slice, from, to) => {
      rangesOf(this.#fresh, slice).add(from, to);
      journal.touch();
    };
  }

  takeChanges(add: AddRecord): void {
    this.#add(this.#fresh, add);
    mergeInto(this.#unsaved, this.#fresh);
    this.#fresh.clear();
  }

  allUnsaved(add: AddRecord): void {
    mergeInto(this.#unsaved, this.#fresh);
    this.#fresh.clear();
    this.#add(this.#unsaved, add);
  }

  freeze(): void {
    this.#writing = this.#unsaved;
    this.#unsaved = new Map();
  }

  settle(durable: boolean): void {
    if (!durable) mergeInto(this.#unsaved, this.#writing);
    this.#writing = new Map();
  }

  #add(all: Ranges, add: AddRecord): void {
    for (const [slice, ranges] of all) {
      for (let i = 0; i < ranges.count; i++) {
        const from = ranges.from(i);
        add(this.#stage, slice.at + from, slice.bytes.subarray(from, ranges.to(i)));
      }
    }
  }
}

function rangesOf(all: Ranges, slice: TableSlice): ChangedRanges {
  let ranges = all.get(slice);
  if (ranges === undefined) {
    ranges = new ChangedRanges();
    all.set(slice, ranges);
  }
  return ranges;
}

function mergeInto(all: Ranges, more: Ranges): void {
  for (const [slice, ranges] of more) rangesOf(all, slice).addAll(ranges);
}

type Entries = Map<RootTable, Set<number>>;

/** The L1 table or the refcount table: the changed entries. */
class EntryTracker implements Tracker {
  readonly #stage: number;
  readonly #journal: ChangeJournal;
  #fresh: Entries = new Map();
  #unsaved: Entries = new Map();
  #writing: Entries = new Map();

  constructor(stage: number, journal: ChangeJournal) {
    this.#stage = stage;
    this.#journal = journal;
  }

  readonly note = (table: RootTable, index: number): void => {
    noteEntry(this.#fresh, table, index);
    this.#journal.touch();
  };

  takeChanges(add: AddRecord): void {
    this.#add(this.#fresh, add);
    mergeEntries(this.#unsaved, this.#fresh);
    this.#fresh.clear();
  }

  allUnsaved(add: AddRecord): void {
    mergeEntries(this.#unsaved, this.#fresh);
    this.#fresh.clear();
    this.#add(this.#unsaved, add);
  }

  freeze(): void {
    this.#writing = this.#unsaved;
    this.#unsaved = new Map();
  }

  settle(durable: boolean): void {
    if (!durable) mergeEntries(this.#unsaved, this.#writing);
    this.#writing = new Map();
  }

  #add(entries: Entries, add: AddRecord): void {
    for (const [table, indices] of entries) {
      for (const index of indices) {
        const at = index * TABLE_ENTRY_BYTES;
        add(this.#stage, table.at + at, table.bytes.subarray(at, at + TABLE_ENTRY_BYTES));
      }
    }
  }
}

function noteEntry(entries: Entries, table: RootTable, index: number): void {
  const indices = entries.get(table);
  if (indices === undefined) entries.set(table, new Set([index]));
  else indices.add(index);
}

function mergeEntries(entries: Entries, more: Entries): void {
  for (const [table, indices] of more) for (const index of indices) noteEntry(entries, table, index);
}

/**
 * Keeps the journal of an open image true while its tables change: notes every change of a table, and tells the journal when
 * a write-back begins and ends.
 */
export class MetadataChanges {
  readonly #journal: ChangeJournal;
  readonly #counts: readonly Tracker[];
  readonly #mappings: readonly Tracker[];

  constructor(journal: ChangeJournal, refcounts: Refcounts, l2: TableCache, l1: RootTable) {
    this.#journal = journal;
    const refcountTable = new EntryTracker(JOURNAL_STAGE.refcountTable, journal);
    refcounts.onTableSet = refcountTable.note;
    const l1Entries = new EntryTracker(JOURNAL_STAGE.l1, journal);
    l1.onSet = l1Entries.note;
    this.#counts = [new SliceTracker(JOURNAL_STAGE.refcounts, refcounts.cache, journal), refcountTable];
    this.#mappings = [new SliceTracker(JOURNAL_STAGE.l2, l2, journal), l1Entries];
    for (const tracker of [...this.#counts, ...this.#mappings]) journal.register(tracker);
  }

  /** A write-back is about to write all that has changed: the journal must know it first, or parts of it would mix with older records. */
  freeze(withRefcounts: boolean): void {
    this.#journal.commit();
    for (const tracker of this.#taken(withRefcounts)) tracker.freeze();
  }

  /** The write-back has ended. When it succeeded, clusters that it made free may get another use as soon as this returns. */
  settle(withRefcounts: boolean, durable: boolean): void {
    for (const tracker of this.#taken(withRefcounts)) tracker.settle(durable);
    if (durable) this.#journal.checkpoint();
  }

  #taken(withRefcounts: boolean): readonly Tracker[] {
    return withRefcounts ? [...this.#counts, ...this.#mappings] : this.#mappings;
  }
}
