import { viewOf } from "../../../../base/bytes.js";
import { isPromise } from "../../../../base/maybe-promise.js";
import { compressedOffsetLimit } from "../../entries.js";
import type { CheckSession } from "../check-session.js";
import type { LateWrites } from "./late-writes.js";
import { hostRange, mendEntry } from "./mend-entry.js";
import type { NewClusters } from "./new-clusters.js";
import { noteMended } from "./note-mended.js";
import type { SharedClusters } from "./shared-clusters.js";

const TWO_32 = 0x1_0000_0000;

/** An L2 table as L1 entries will find it. */
interface Table {
  /** File offset of the table that the repair has read. */
  readonly original: number;
  /** File offset where the first entry of each L1 table finds it. */
  readonly offset: number;
  /** L1 entries that refer to `offset` so far. */
  uses: number;
}

/**
 * Puts L2 tables right and gives each of them clusters of its own.
 *
 * A table that shares its cluster with nothing else is mended in place, for all L1 tables that refer to it. One that does is never
 * written to: a mended copy takes its place. The same for data that a table of fixed place, or more entries than the refcounts
 * can tell, share a cluster with: every side keeps what it could read.
 */
export class TableMending {
  readonly #session: CheckSession;
  readonly #shared: SharedClusters;
  readonly #room: NewClusters;
  readonly #late: LateWrites;
  readonly #tables = new Map<number, Table>();

  /** `session`: the repair. */
  constructor(session: CheckSession, shared: SharedClusters, room: NewClusters, late: LateWrites) {
    this.#session = session;
    this.#shared = shared;
    this.#room = room;
    this.#late = late;
  }

  /**
   * Where an L1 entry finds the table that it had at `offset`; 0 where it needs none. `isFirst`: no entry before it in the same L1
   * table has it. `guest`: where on the disk the entry begins.
   */
  async placeOf(offset: number, isFirst: boolean, guest: number): Promise<number> {
    const table = this.#tables.get(offset) ?? (await this.#mend(offset, guest));
    this.#tables.set(offset, table);
    if (isFirst && table.uses < this.#session.geometry.maxRefcount) {
      table.uses++;
      return table.offset;
    }
    return this.#copy(table, guest);
  }

  async #mend(original: number, guest: number): Promise<Table> {
    const session = this.#session;
    const bytes = await this.#read(original);
    const uses = this.#shared.tableUses(original);
    const before = bytes.slice();
    const counted = Math.min(uses, session.geometry.maxRefcount);
    await this.#mendEntries(bytes, original, { uses: counted, guest, tell: true });
    if (this.#shared.isTableAlone(original)) {
      if (!sameBytes(before, bytes)) await this.#late.add(original, bytes);
      return { original, offset: original, uses: 0 };
    }
    const offset = await this.#place(bytes);
    noteMended(session, "L2 table", original, `L2 table offset=0x${hex(original)}: now in a cluster of its own`);
    return { original, offset, uses: 0 };
  }

  /** A copy for one entry more; the change of the original may still be waiting. */
  async #copy({ original }: Table, guest: number): Promise<number> {
    const bytes = await this.#read(original);
    await this.#mendEntries(bytes, original, { uses: 1, guest, tell: false });
    noteMended(this.#session, "L2 table", original, `L2 table offset=0x${hex(original)}: copied for another L1 entry`);
    return bytes.every((byte) => byte === 0) ? 0 : this.#place(bytes);
  }

  async #mendEntries(
    bytes: Uint8Array,
    offset: number,
    { uses, guest, tell }: { readonly uses: number; readonly guest: number; readonly tell: boolean },
  ): Promise<void> {
    const session = this.#session;
    const view = viewOf(bytes);
    const { l2EntrySize, l2Entries, clusterSize } = session.geometry;
    for (let index = 0; index < l2Entries; index++) {
      const at = index * l2EntrySize;
      const fault = mendEntry(session, view, at, guest + index * clusterSize);
      if (fault !== undefined && tell) {
        noteMended(session, "L2 table", offset, `L2 table offset=0x${hex(offset)} entry ${index}: ${fault}`);
      }
      const range = hostRange(session, view, at);
      if (range === undefined || !this.#shared.mustMove(range.offset, range.length, uses)) continue;
      await this.#moveData(view, at, range.offset, range.length);
      noteMended(
        session,
        "data cluster",
        range.offset,
        `L2 table offset=0x${hex(offset)} entry ${index}: data copied from shared cluster 0x${hex(range.offset)}`,
      );
    }
  }

  async #moveData(view: DataView, at: number, offset: number, length: number): Promise<void> {
    const { clusterSize, clusterBits } = this.#session.geometry;
    const within = offset % clusterSize;
    const bytes = new Uint8Array(length);
    await this.#readAt(offset, bytes);
    const to = this.#room.take(within + length) + within;
    const isCompressed = (view.getUint32(at) & 0x4000_0000) !== 0;
    if (isCompressed && to >= compressedOffsetLimit(clusterBits)) return;
    await this.#write(to, bytes);
    // The offset field of a compressed entry begins at bit 0 and is narrower; flags and lengths above it stay.
    const offsetHigh = isCompressed ? 2 ** (38 - clusterBits) - 1 : 0x00ff_ffff;
    const flagsLow = isCompressed ? 0 : view.getUint32(at + 4) & 0x1ff;
    view.setUint32(at, ((view.getUint32(at) & ~offsetHigh) | Math.floor(to / TWO_32)) >>> 0);
    view.setUint32(at + 4, ((to % TWO_32) | flagsLow) >>> 0);
  }

  async #place(bytes: Uint8Array): Promise<number> {
    const offset = this.#room.take(bytes.length);
    await this.#write(offset, bytes);
    return offset;
  }

  async #read(offset: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.#session.geometry.clusterSize);
    await this.#readAt(offset, bytes);
    return bytes;
  }

  async #readAt(offset: number, bytes: Uint8Array): Promise<void> {
    const wait = this.#session.read(offset, bytes, "the repair of L2 tables");
    if (isPromise(wait)) await wait;
  }

  async #write(offset: number, bytes: Uint8Array): Promise<void> {
    const wait = this.#session.storage.write(offset, bytes);
    if (isPromise(wait)) await wait;
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.every((byte, index) => byte === b[index]);
}

function hex(offset: number): string {
  return offset.toString(16);
}
