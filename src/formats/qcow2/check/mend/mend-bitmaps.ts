import { viewOf } from "../../../../base/bytes.js";
import { isZcowError } from "../../../../base/errors.js";
import { isPromise } from "../../../../base/maybe-promise.js";
import {
  BITMAP_IN_USE,
  type BitmapEntry,
  decodeEntry,
  encodeDirectory,
  isUsable,
} from "../../bitmaps/bitmap-directory.js";
import { tableEntriesOf } from "../../bitmaps/load-bitmaps.js";
import type { BitmapDirectory } from "../../header.js";
import { TABLE_ENTRY_BYTES } from "../../limits.js";
import { MAX_BITMAP_TABLE_ENTRIES } from "../check-limits.js";
import type { CheckSession } from "../check-session.js";
import { dropBitmaps, markCorrupt, switchBitmaps } from "../header-patch.js";
import { NewClusters } from "./new-clusters.js";
import { noteMended } from "./note-mended.js";

const ENTRY_RESERVED = 0xff00_0000_0000_01fen;
const ENTRY_OFFSET = 0x00ff_ffff_ffff_fe00n;
const ALL_ONES = 1n;
/** Where the flags of a directory entry lie in it. */
const FLAGS_AT = 12;

/** A bitmap that stays, and where its entry is in the directory. */
interface Kept {
  readonly entry: BitmapEntry;
  readonly at: number;
}

/**
 * Puts bitmaps right (qcow2 specification, "Bitmaps"). What a bitmap cannot say any more counts as dirty, so that a backup copies too
 * much and never too little: pieces whose place is lost, and all of a bitmap that was in use when its writer stopped. Bitmaps without
 * a usable entry or table are removed.
 *
 * Pieces are written in place, each right by itself, flushed before a bitmap is said to be consistent again. A directory with fewer entries
 * is written behind the end of the file and then named by the header.
 */
export async function mendBitmaps(session: CheckSession): Promise<void> {
  const { bitmaps } = session.header;
  if (bitmaps === undefined || bitmaps.count === 0) return;
  await new BitmapMending(session, bitmaps).run();
}

class BitmapMending {
  readonly #session: CheckSession;
  readonly #directory: BitmapDirectory;
  readonly #kept: Kept[] = [];
  #lost = 0;

  constructor(session: CheckSession, directory: BitmapDirectory) {
    this.#session = session;
    this.#directory = directory;
  }

  async run(): Promise<void> {
    const { offset, length } = this.#directory;
    const { storage } = this.#session;
    if (offset === 0 || offset + length > storage.size()) {
      this.#note(`the bitmap directory lies outside the file, all ${this.#directory.count} bitmaps are lost`);
      return this.#dropAll();
    }
    const bytes = new Uint8Array(length);
    await this.#read(offset, bytes, "the bitmap directory");
    this.#readEntries(bytes);
    for (const { entry } of this.#kept) await this.#mendTable(entry);
    await this.#flush();
    await this.#makeConsistent(bytes);
    await this.#rewrite(length);
  }

  #readEntries(bytes: Uint8Array): void {
    const { count } = this.#directory;
    const names = new Set<string>();
    let at = 0;
    let entries = 0;
    for (let index = 0; index < count; index++) {
      const found = this.#decode(bytes, at, index);
      if (found === undefined) return this.#lose(count - index, `bitmaps ${index} to ${count - 1}: removed`);
      at += found.length;
      if (found.entry === undefined) continue;
      const { entry } = found;
      entries += entry.tableEntries;
      const obstacle = names.has(entry.name) ? "its name appears twice" : this.#obstacle(entry, entries);
      names.add(entry.name);
      if (obstacle === undefined) this.#kept.push({ entry, at: at - found.length });
      else this.#lose(1, `bitmap '${entry.name}': removed, ${obstacle}`);
    }
  }

  /** The entry at `at`; without `entry` where it is wrong but the next one can be found; undefined where that cannot be either. */
  #decode(bytes: Uint8Array, at: number, index: number): { entry?: BitmapEntry; length: number } | undefined {
    const { clusterSize } = this.#session.geometry;
    try {
      return decodeEntry(bytes, at, index, clusterSize);
    } catch (fault) {
      if (!isZcowError(fault)) throw fault;
      this.#note(fault.message);
      if (fault.data.field === "size") return undefined;
      const view = viewOf(bytes);
      const length = 24 + view.getUint16(at + 18) + view.getUint32(at + 20);
      this.#lost++;
      return { length: Math.ceil(length / 8) * 8 };
    }
  }

  /** Why the table of the bitmap cannot be used. */
  #obstacle({ tableOffset, tableEntries, granularityBits }: BitmapEntry, total: number): string | undefined {
    const { storage, geometry } = this.#session;
    if (total > MAX_BITMAP_TABLE_ENTRIES) return "the tables are too large together";
    if (tableOffset + tableEntries * TABLE_ENTRY_BYTES > storage.size()) return "its table lies outside the file";
    const fitting = tableEntriesOf(geometry.size, granularityBits, geometry.clusterSize);
    return tableEntries === fitting ? undefined : `its table has ${tableEntries} entries, the disk needs ${fitting}`;
  }

  async #mendTable(entry: BitmapEntry): Promise<void> {
    const table = new Uint8Array(entry.tableEntries * TABLE_ENTRY_BYTES);
    await this.#read(entry.tableOffset, table, "a bitmap table");
    const view = viewOf(table);
    const isLost = isInconsistent(entry);
    let changed = 0;
    for (let at = 0; at < table.length; at += TABLE_ENTRY_BYTES) {
      const value = view.getBigUint64(at);
      if (value === ALL_ONES || !(isLost || this.#isBad(value))) continue;
      view.setBigUint64(at, ALL_ONES);
      changed++;
    }
    if (changed === 0) return;
    if (!isLost) this.#note(`bitmap '${entry.name}': ${changed} pieces are lost and count as dirty`, entry.tableOffset);
    const wait = this.#session.storage.write(entry.tableOffset, table);
    if (isPromise(wait)) await wait;
  }

  #isBad(value: bigint): boolean {
    const { geometry, storage } = this.#session;
    const offset = value & ENTRY_OFFSET;
    if ((value & ENTRY_RESERVED) !== 0n || offset % BigInt(geometry.clusterSize) !== 0n) return true;
    return offset >= BigInt(storage.size()) || (offset !== 0n && (value & ALL_ONES) !== 0n);
  }

  /** Clears the mark of bitmaps that were in use. Flags lie in one sector each. */
  async #makeConsistent(directory: Uint8Array): Promise<void> {
    const view = viewOf(directory);
    for (const [index, { entry, at }] of this.#kept.entries()) {
      if (!isInconsistent(entry)) continue;
      this.#note(`bitmap '${entry.name}': was in use, now consistent with everything dirty`);
      const flags = entry.flags & ~BITMAP_IN_USE;
      this.#kept[index] = { entry: { ...entry, flags }, at };
      view.setUint32(at + FLAGS_AT, flags);
      const bytes = directory.subarray(at + FLAGS_AT, at + FLAGS_AT + 4);
      const wait = this.#session.storage.write(this.#directory.offset + at + FLAGS_AT, bytes);
      if (isPromise(wait)) await wait;
    }
    await this.#flush();
  }

  async #rewrite(length: number): Promise<void> {
    const session = this.#session;
    const bytes = encodeDirectory(this.#kept.map(({ entry }) => entry));
    if (this.#lost === 0 && bytes.length === length) return;
    if (this.#lost === 0) this.#note(`the bitmap directory has ${length} bytes, its entries ${bytes.length}`);
    if (this.#kept.length === 0) return this.#dropAll();
    session.header = await markCorrupt(session.storage, session.header);
    const offset = new NewClusters(session).take(bytes.length);
    const wait = session.storage.write(offset, bytes);
    if (isPromise(wait)) await wait;
    await switchBitmaps(session.storage, { count: this.#kept.length, offset, length: bytes.length });
  }

  #dropAll(): Promise<void> {
    return dropBitmaps(this.#session.storage);
  }

  #lose(count: number, message: string): void {
    this.#lost += count;
    this.#note(message);
  }

  #note(message: string, offset = this.#directory.offset): void {
    noteMended(this.#session, "bitmap directory", offset, message);
  }

  async #read(at: number, into: Uint8Array, stage: string): Promise<void> {
    const wait = this.#session.read(at, into, stage);
    if (isPromise(wait)) await wait;
  }

  async #flush(): Promise<void> {
    const wait = this.#session.storage.flush();
    if (isPromise(wait)) await wait;
  }
}

/** It was being written to when its writer stopped, and its bits are understood. */
function isInconsistent(entry: BitmapEntry): boolean {
  return (entry.flags & BITMAP_IN_USE) !== 0 && isUsable(entry);
}
