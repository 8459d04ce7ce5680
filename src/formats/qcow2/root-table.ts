import { viewOf } from "../../base/bytes.js";
import { alignUp } from "../../base/integers.js";
import { isPromise } from "../../base/maybe-promise.js";
import type { Storage } from "../../storage/storage.js";
import type { Qcow2Header } from "./header.js";
import { TABLE_ENTRY_BYTES } from "./limits.js";

/** Bytes written at once: a device writes a sector whole or not at all, so an entry never tears. */
const SECTOR = 512;
const ENTRIES_PER_SECTOR = SECTOR / TABLE_ENTRY_BYTES;

/** A 64-bit entry by halves. */
interface Entry {
  readonly high: number;
  readonly low: number;
}

/** Entries that one write-back carries to the file. */
export type RootUpdate = ReadonlyMap<number, Entry>;

/**
 * The L1 table or the refcount table: held in memory whole, written entry by entry.
 *
 * In memory an entry changes at once. In the file it changes only by `write`, after what it points to
 * is durable. A sector that is written for one entry carries, for its other
 * entries that are not that far yet, the value they have in the file.
 */
export class RootTable {
  /** File offset, bytes. This and the next three change by `moveTo` only. */
  at: number;
  bytes: Uint8Array;
  view: DataView;
  entries: number;
  /** Told of every entry that is set. */
  onSet: ((table: RootTable, index: number) => void) | undefined = undefined;
  /** For each entry that may differ from the file: what the file holds. */
  readonly #inFile = new Map<number, Entry>();

  /** `entries`: how many of the entries in `bytes` are in use; what follows them is kept as it is. */
  constructor(at: number, bytes: Uint8Array, entries = bytes.length / TABLE_ENTRY_BYTES) {
    this.at = at;
    this.bytes = bytes;
    this.view = viewOf(bytes);
    this.entries = entries;
  }

  get isDirty(): boolean {
    return this.#inFile.size > 0;
  }

  /** The file may hold another value of entry `index`. */
  isWaiting(index: number): boolean {
    return this.#inFile.has(index);
  }

  high(index: number): number {
    return this.view.getUint32(index * TABLE_ENTRY_BYTES);
  }

  low(index: number): number {
    return this.view.getUint32(index * TABLE_ENTRY_BYTES + 4);
  }

  set(index: number, high: number, low: number): void {
    if (!this.#inFile.has(index)) this.#inFile.set(index, this.#entry(index));
    this.view.setUint32(index * TABLE_ENTRY_BYTES, high);
    this.view.setUint32(index * TABLE_ENTRY_BYTES + 4, low);
    this.onSet?.(this, index);
  }

  /** The same table with room for `entries`, more than it has; the new ones are 0. Whole sectors. */
  lengthened(entries: number): Uint8Array {
    const bytes = new Uint8Array(alignUp(entries * TABLE_ENTRY_BYTES, SECTOR));
    bytes.set(this.bytes.subarray(0, this.entries * TABLE_ENTRY_BYTES));
    return bytes;
  }

  /** The file has the table at `at` now, as `bytes`, with `entries` in use. Nothing may be dirty, for it would be so in another place. */
  moveTo(at: number, bytes: Uint8Array, entries: number): void {
    if (this.isDirty) throw new Error("a table with entries that the file does not have was moved");
    this.at = at;
    this.bytes = bytes;
    this.view = viewOf(bytes);
    this.entries = entries;
  }

  /** The changed entries, as they are now. */
  freeze(): RootUpdate {
    const update = new Map<number, Entry>();
    for (const index of this.#inFile.keys()) update.set(index, this.#entry(index));
    return update;
  }

  /** Writes the entries of `update`, in runs of neighbouring sectors. */
  async write(storage: Storage, update: RootUpdate): Promise<void> {
    const sectors = [...new Set([...update.keys()].map((index) => Math.floor(index / ENTRIES_PER_SECTOR)))];
    sectors.sort((a, b) => a - b);
    for (let from = 0; from < sectors.length; ) {
      let to = from + 1;
      while (to < sectors.length && sectors[to] === (sectors[to - 1] as number) + 1) to += 1;
      const first = sectors[from] as number;
      await storage.write(this.at + first * SECTOR, this.#compose(first, to - from, update));
      from = to;
    }
  }

  /** Call when `update` has become durable. */
  settle(update: RootUpdate): void {
    for (const [index, written] of update) {
      const now = this.#entry(index);
      if (now.high === written.high && now.low === written.low) this.#inFile.delete(index);
      else this.#inFile.set(index, written);
    }
  }

  #compose(firstSector: number, sectors: number, update: RootUpdate): Uint8Array {
    const start = firstSector * SECTOR;
    const bytes = this.bytes.slice(start, Math.min(start + sectors * SECTOR, this.bytes.length));
    const view = viewOf(bytes);
    const firstEntry = firstSector * ENTRIES_PER_SECTOR;
    for (let i = 0; i < bytes.length / TABLE_ENTRY_BYTES; i++) {
      const entry = update.get(firstEntry + i) ?? this.#inFile.get(firstEntry + i);
      if (entry === undefined) continue;
      view.setUint32(i * TABLE_ENTRY_BYTES, entry.high);
      view.setUint32(i * TABLE_ENTRY_BYTES + 4, entry.low);
    }
    return bytes;
  }

  #entry(index: number): Entry {
    return { high: this.high(index), low: this.low(index) };
  }
}

/** The L1 table of an image. The length is bounded by the header's own limit, 32 MiB. Whole sectors, so that entries can be written in sectors. */
export async function readL1(storage: Storage, header: Qcow2Header): Promise<RootTable> {
  const bytes = new Uint8Array(alignUp(header.l1Size * TABLE_ENTRY_BYTES, SECTOR));
  const wait = bytes.length === 0 ? undefined : storage.read(header.l1TableOffset, bytes);
  if (isPromise(wait)) await wait;
  return new RootTable(header.l1TableOffset, bytes, header.l1Size);
}
