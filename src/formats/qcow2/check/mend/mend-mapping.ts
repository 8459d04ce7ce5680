import { isPromise } from "../../../../base/maybe-promise.js";
import { entryHigh, entryLow, l1Offset } from "../../entries.js";
import { MAX_L1_BYTES, TABLE_ENTRY_BYTES } from "../../limits.js";
import { switchTables } from "../../rewrite/switch-header.js";
import type { Snapshot } from "../../snapshots/snapshot.js";
import { readSnapshotTable } from "../../snapshots/snapshot-table.js";
import { type CheckSession, CheckStopped } from "../check-session.js";
import { markCorrupt } from "../header-patch.js";
import { l1Pieces } from "../l1-pieces.js";
import { LateWrites } from "./late-writes.js";
import { TableMending } from "./mend-tables.js";
import { neededEntries } from "./needed-entries.js";
import { NewClusters } from "./new-clusters.js";
import { noteMended } from "./note-mended.js";
import { SharedClusters } from "./shared-clusters.js";
import { type SnapshotFields, writeSnapshots } from "./write-snapshots.js";

/**
 * Puts L1 and L2 tables right, of the disk and of all snapshots. Refcounts are repaired afterwards, by another walk.
 *
 *     step                                     | a crash in this step leaves
 *     -----------------------------------------+-----------------------------------------------------------
 *     corrupt bit set (version 3), flush       | the image as it was; nobody but a repair writes to it
 *     copies of tables and data behind the end | the same; the file is longer
 *     flush, then entries changed in place     | each entry as it was or as it will be, right either way
 *     flush, then header to moved L1 table or  | the old or the new one, both readable
 *       snapshot table, flush                  |
 *     (refcounts, then the corrupt bit cleared) |
 */
export async function mendMapping(session: CheckSession): Promise<void> {
  const shared = await SharedClusters.survey(session);
  await new MappingMending(session, shared).run();
}

const ACTIVE = "active L1 table";
const COPIED = 0x8000_0000;
const RESERVED_HIGH = 0x7f00_0000;
const RESERVED_LOW = 0x1ff;

interface L1Table {
  readonly name: string;
  readonly offset: number;
  /** Entries. */
  readonly length: number;
}

class MappingMending {
  readonly #session: CheckSession;
  readonly #shared: SharedClusters;
  readonly #room: NewClusters;
  readonly #late: LateWrites;
  readonly #tables: TableMending;

  constructor(session: CheckSession, shared: SharedClusters) {
    this.#session = session;
    this.#shared = shared;
    this.#room = new NewClusters(session);
    this.#late = new LateWrites(session.storage);
    this.#tables = new TableMending(session, shared, this.#room, this.#late);
  }

  async run(): Promise<void> {
    const session = this.#session;
    const { header } = session;
    const active = { name: ACTIVE, offset: header.l1TableOffset, length: header.l1Size };
    if (await this.#isNoTable(active)) refuseLostTable(session);
    session.header = await markCorrupt(session.storage, header);
    const l1TableOffset = await this.#mend(active);
    const snapshots = await this.#mendSnapshots();
    await this.#late.settle();
    if (l1TableOffset === header.l1TableOffset && snapshots === undefined) return;
    session.header = { ...session.header, ...snapshots, l1TableOffset };
    await switchTables(session.storage, session.header);
  }

  /** The header's fields for a new snapshot table, where one is needed. */
  async #mendSnapshots(): Promise<SnapshotFields | undefined> {
    const session = this.#session;
    const { header, snapshotRoots } = session;
    if (snapshotRoots.length === 0) return undefined;
    const { snapshots, length } = await readSnapshotTable(session.storage, header);
    let changed = this.#shared.isPlaceShared(header.snapshotsOffset, length);
    const kept: Snapshot[] = [];
    for (const stored of snapshots) {
      const snapshot = this.#withoutExcess(stored);
      changed ||= snapshot !== stored;
      const { id, name, l1Entries } = snapshot;
      const table = {
        name: `L1 table of snapshot ${id} (${name})`,
        offset: Number(snapshot.l1Offset),
        length: l1Entries,
      };
      if (l1Entries * TABLE_ENTRY_BYTES > MAX_L1_BYTES || (await this.#isNoTable(table))) {
        noteMended(
          session,
          "snapshot table",
          header.snapshotsOffset,
          `snapshot ${id} (${name}): removed, its L1 table is lost`,
        );
        changed = true;
        continue;
      }
      const offset = await this.#mend(table);
      changed ||= offset !== table.offset;
      kept.push({ ...snapshot, l1Offset: BigInt(offset) });
    }
    return changed ? writeSnapshots(session, kept, this.#room) : undefined;
  }

  /** Entries that the snapshot has no use for are not its own when something else is in their place. */
  #withoutExcess(snapshot: Snapshot): Snapshot {
    const { id, name, l1Offset: offset, l1Entries } = snapshot;
    const needed = neededEntries(snapshot, this.#session.geometry);
    const start = Number(offset) + needed * TABLE_ENTRY_BYTES;
    const end = Number(offset) + l1Entries * TABLE_ENTRY_BYTES;
    const isExcess =
      l1Entries * TABLE_ENTRY_BYTES <= MAX_L1_BYTES && needed > 0 && this.#shared.isPlaceShared(start, end - start);
    if (!isExcess) return snapshot;
    noteMended(
      this.#session,
      "snapshot table",
      this.#session.header.snapshotsOffset,
      `snapshot ${id} (${name}): l1_size=0x${l1Entries.toString(16)} reaches into something else, now 0x${needed.toString(16)}`,
    );
    return { ...snapshot, l1Entries: needed };
  }

  /** Mends the table and everything under it. Returns its offset from now on. */
  async #mend(table: L1Table): Promise<number> {
    if (!this.#mustMove(table)) {
      await this.#mendPieces(table, table.offset);
      return table.offset;
    }
    const length = table.length * TABLE_ENTRY_BYTES;
    const offset = this.#room.take(length);
    await this.#mendPieces(table, offset);
    await this.#coverBehind(offset + length);
    noteMended(this.#session, "L1 table", table.offset, `${table.name}: now in clusters of its own`);
    return offset;
  }

  /** Goes over the table in pieces; what changes is written to the table at `target`, and to a new one everything is. */
  async #mendPieces(table: L1Table, target: number): Promise<void> {
    const seen = new Set<number>();
    for await (const { view, first, count } of l1Pieces(this.#session, table, "the repair of L1 tables")) {
      const bytes = new Uint8Array(view.buffer as ArrayBuffer, view.byteOffset, count * TABLE_ENTRY_BYTES);
      const before = bytes.slice();
      for (let at = 0; at < count; at++) await this.#mendEntry(table, first + at, view, at * TABLE_ENTRY_BYTES, seen);
      const to = target + first * TABLE_ENTRY_BYTES;
      if (target !== table.offset) await this.#write(to, bytes);
      else if (!bytes.every((byte, at) => byte === before[at])) await this.#late.add(to, bytes.slice());
    }
  }

  async #mendEntry(table: L1Table, index: number, view: DataView, at: number, seen: Set<number>): Promise<void> {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    if (high === 0 && low === 0) return;
    const offset = l1Offset(high, low);
    const guest = index * this.#session.geometry.l2Coverage;
    const where = this.#isMisplaced(offset) ? 0 : await this.#tables.placeOf(offset, !seen.has(offset), guest);
    seen.add(offset);
    this.#tell(table, index, offset, isReserved(high, low));
    if (where === offset && where !== 0 && !isReserved(high, low)) return;
    const isCopied = where !== 0 && (where === offset ? (high & COPIED) !== 0 : table.name === ACTIVE);
    view.setUint32(at, entryHigh(where, isCopied));
    view.setUint32(at + 4, entryLow(where, false));
  }

  /** Lets the file reach to `end`: the last entries of a new table may be nothing and not written. */
  async #coverBehind(end: number): Promise<void> {
    if (this.#session.storage.size() < end) await this.#write(end - 1, new Uint8Array(1));
  }

  #tell(table: L1Table, index: number, offset: number, reserved: boolean): void {
    const what = this.#isMisplaced(offset)
      ? `table offset 0x${offset.toString(16)} is no place for one, now without a table`
      : reserved
        ? "reserved bits"
        : undefined;
    if (what === undefined) return;
    noteMended(this.#session, "L1 table", table.offset, `${table.name} entry ${index}: ${what}`);
  }

  #isMisplaced(offset: number): boolean {
    const { geometry, fileLength } = this.#session;
    return offset === 0 || offset % geometry.clusterSize !== 0 || offset >= fileLength;
  }

  /** It shares clusters, or a part of it lies behind the end of the file. */
  #mustMove({ offset, length }: L1Table): boolean {
    const bytes = length * TABLE_ENTRY_BYTES;
    const isCut = offset + bytes - this.#session.fileLength >= this.#session.geometry.clusterSize;
    return isCut || this.#shared.isPlaceShared(offset, bytes);
  }

  /**
   * Something else is stored in the place of the table, and what is there does not look like one: more entries are wrong than right.
   * Or it lies behind the end of the file altogether.
   */
  async #isNoTable(table: L1Table): Promise<boolean> {
    if (table.length === 0) return false;
    if (table.offset === 0 || table.offset % this.#session.geometry.clusterSize !== 0) return true;
    if (table.offset >= this.#session.fileLength) return true;
    if (!this.#shared.isPlaceShared(table.offset, table.length * TABLE_ENTRY_BYTES)) return false;
    let wrong = 0;
    for await (const { view, count } of l1Pieces(this.#session, table, "the repair of L1 tables")) {
      for (let at = 0; at < count * TABLE_ENTRY_BYTES; at += TABLE_ENTRY_BYTES) {
        const high = view.getUint32(at);
        const low = view.getUint32(at + 4);
        if (high === 0 && low === 0) continue;
        wrong += isReserved(high, low) || this.#isMisplaced(l1Offset(high, low)) ? 1 : -1;
      }
    }
    return wrong > 0;
  }

  async #write(at: number, bytes: Uint8Array): Promise<void> {
    const wait = this.#session.storage.write(at, bytes);
    if (isPromise(wait)) await wait;
  }
}

function isReserved(high: number, low: number): boolean {
  return (high & RESERVED_HIGH) !== 0 || (low & RESERVED_LOW) !== 0;
}

/** Everything hangs on it: without it all data look leaked, and would be given away. */
function refuseLostTable(session: CheckSession): never {
  session.report(
    { kind: "repair", severity: "note", structure: "L1 table", offset: session.header.l1TableOffset },
    () => "ERROR not repairing: the L1 table is not where the header says, so all data would be given away",
  );
  throw new CheckStopped("Input/output error");
}
