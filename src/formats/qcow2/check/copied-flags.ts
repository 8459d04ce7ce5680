import { viewOf } from "../../../base/bytes.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { TABLE_ENTRY_BYTES } from "../limits.js";
import { type CheckSession, CheckStopped } from "./check-session.js";
import { type L1Piece, l1Pieces } from "./l1-pieces.js";
import { hex64 } from "./l2-references.js";
import { MetadataPlaces } from "./metadata-places.js";
import type { RefcountTable } from "./refcount-structures.js";
import { storedRefcount } from "./stored-refcounts.js";
import { TableReader } from "./table-reader.js";

/**
 * The copied flag (bit 63) of active L1 and L2 entries promises that the stored refcount is exactly 1.
 *
 * Tables whose flags are all right are recognised by one quick loop; only the others are looked at entry by entry.
 * Runs after the stored counts were brought into `session.counts`.
 */

const TWO_32 = 0x1_0000_0000;
const COPIED = 0x8000_0000;
const COMPRESSED = 0x4000_0000;
const OFFSET_HIGH = 0x00ff_ffff;
const ZERO = 1;

export class CopiedFlags {
  readonly #session: CheckSession;
  readonly #table: RefcountTable;
  readonly #repair: boolean;
  /** Tables with something wrong, copied out of the read-ahead buffer. */
  #places: MetadataPlaces | undefined;
  readonly #bulk = new Set<number>();
  readonly #suspects: { readonly offset: number; readonly bytes: Uint8Array }[] = [];

  constructor(session: CheckSession, table: RefcountTable, repair: boolean) {
    this.#session = session;
    this.#table = table;
    this.#repair = repair;
  }

  async check(): Promise<void> {
    const session = this.#session;
    const { l1Size, l1TableOffset } = session.header;
    const reader = new TableReader(session, "check_oflag_copied", (view, at, offset) =>
      this.#suspect(view, at, offset),
    );
    const table = { offset: l1TableOffset, length: l1Size };
    for await (const piece of l1Pieces(session, table, "check_oflag_copied")) await this.#checkPiece(piece, reader);
    await this.#settle(reader);
  }

  async #checkPiece({ view, first, count }: L1Piece, reader: TableReader): Promise<void> {
    const session = this.#session;
    for (let at = 0; at < count; at++) {
      const high = view.getUint32(at * TABLE_ENTRY_BYTES);
      const low = view.getUint32(at * TABLE_ENTRY_BYTES + 4);
      const offset = (high & OFFSET_HIGH) * TWO_32 + ((low & ~0x1ff) >>> 0);
      if (offset === 0 || offset % session.geometry.clusterSize !== 0) continue;
      if (!this.#flagIsRight(high, offset)) {
        await this.#settle(reader);
        await this.#judgeL1Entry(first + at, high, low, offset);
      }
      if (offset >= session.fileLength || this.#isSeenBefore(offset)) continue;
      const wait = reader.ask(offset, first + at);
      if (isPromise(wait)) await wait;
      if (this.#suspects.length > 0) await this.#settle(reader);
    }
  }

  /** Tables that were counted in bulk because of many references are looked at once only. */
  #isSeenBefore(offset: number): boolean {
    const cluster = offset / this.#session.geometry.clusterSize;
    if (!this.#session.visits.isOwed(cluster)) return false;
    if (this.#bulk.has(cluster)) return true;
    this.#bulk.add(cluster);
    return false;
  }

  #flagIsRight(high: number, offset: number): boolean {
    const { counts, comparedClusters, geometry } = this.#session;
    const cluster = offset / geometry.clusterSize;
    return cluster < comparedClusters && (counts.get(cluster) === 1) === high > 0x7fff_ffff;
  }

  async #settle(reader: TableReader): Promise<void> {
    await reader.flush();
    for (const suspect of this.#suspects.splice(0)) await this.#judgeTable(suspect.offset, suspect.bytes);
  }

  #suspect(view: DataView, at: number, offset: number): void {
    const { clusterSize } = this.#session.geometry;
    if (this.#isConsistent(view, at)) return;
    const bytes = new Uint8Array(view.buffer as ArrayBuffer, view.byteOffset + at, clusterSize).slice();
    this.#suspects.push({ offset, bytes });
  }

  /** The quick loop: every entry is nothing, or a cluster of the file whose flag and count agree. */
  #isConsistent(view: DataView, at: number): boolean {
    const { geometry, counts, comparedClusters, hasDataFile } = this.#session;
    if (hasDataFile) return false;
    const { clusterSize, clusterBits, l2EntrySize } = geometry;
    const highFactor = TWO_32 / clusterSize;
    const end = at + clusterSize;
    for (let position = at; position < end; position += l2EntrySize) {
      const high = view.getUint32(position);
      if ((high & COMPRESSED) !== 0) continue;
      const low = view.getUint32(position + 4);
      const cluster = (high & OFFSET_HIGH) * highFactor + (low >>> clusterBits);
      if (cluster === 0 && (low & ~0x1ff) === 0) continue;
      if (cluster >= comparedClusters) return false;
      if ((counts.get(cluster) === 1) !== (high | 0) < 0) return false;
    }
    return true;
  }

  async #judgeL1Entry(index: number, high: number, low: number, offset: number): Promise<void> {
    const session = this.#session;
    const refcount = await storedRefcount(session, this.#table, offset / session.geometry.clusterSize);
    if (refcount === undefined || (refcount === 1) === high > 0x7fff_ffff) return;
    this.#report(
      "L2 cluster",
      offset,
      `OFLAG_COPIED L2 cluster: l1_index=${index} l1_entry=${hex64(high, low)} refcount=${refcount}`,
    );
    if (!this.#repair) return;
    this.#refuseSharedL1();
    const entry = new Uint8Array(8);
    viewOf(entry).setUint32(0, flagged(high, refcount));
    viewOf(entry).setUint32(4, low);
    await session.storage.write(session.header.l1TableOffset + index * 8, entry);
    this.#fixed(1);
  }

  async #judgeTable(offset: number, bytes: Uint8Array): Promise<void> {
    const session = this.#session;
    const { l2EntrySize, clusterSize } = session.geometry;
    const view = viewOf(bytes);
    let changed = 0;
    for (let at = 0; at < clusterSize; at += l2EntrySize) {
      const high = view.getUint32(at);
      const low = view.getUint32(at + 4);
      if (!isAllocated(session, high, low)) continue;
      const dataOffset = (high & OFFSET_HIGH) * TWO_32 + ((low & ~0x1ff) >>> 0);
      const cluster = Math.floor(dataOffset / clusterSize);
      const refcount = session.hasDataFile ? 1 : await storedRefcount(session, this.#table, cluster);
      if (refcount === undefined || (refcount === 1) === high > 0x7fff_ffff) continue;
      this.#report(
        "data cluster",
        offset,
        `OFLAG_COPIED data cluster: l2_entry=${hex64(high, low)} refcount=${refcount}`,
      );
      view.setUint32(at, flagged(high, refcount));
      changed++;
    }
    if (!this.#repair || changed === 0) return;
    this.#refuseSharedTable(offset);
    await session.storage.write(offset, bytes);
    this.#fixed(changed);
  }

  #report(structure: string, offset: number, text: string): void {
    const repaired = this.#repair;
    this.#session.report(
      { kind: "copied-flag", severity: "corruption", structure, offset, repaired },
      () => `${repaired ? "Repairing" : "ERROR"} ${text}`,
    );
  }

  #fixed(count: number): void {
    this.#session.tally.corruptions -= count;
    this.#session.tally.corruptionsFixed += count;
  }

  /** Flags are only written into tables that share their clusters with no other metadata. */
  #refuseSharedTable(offset: number): void {
    const owner = this.#metadata().ownerOf(offset / this.#session.geometry.clusterSize);
    if (owner !== undefined) this.#overlap("L2 table", offset, owner);
  }

  #refuseSharedL1(): void {
    const { visits, geometry, header } = this.#session;
    const first = header.l1TableOffset / geometry.clusterSize;
    const clusters = Math.ceil((header.l1Size * 8) / geometry.clusterSize);
    for (let cluster = first; cluster < first + clusters; cluster++) {
      const owner = visits.count(cluster) > 0 ? "L2 table" : this.#metadata().ownerOf(cluster, "L1 table");
      if (owner !== undefined) this.#overlap("L1 table", header.l1TableOffset, owner);
    }
  }

  #metadata(): MetadataPlaces {
    this.#places ??= new MetadataPlaces(this.#session, this.#table);
    return this.#places;
  }

  #overlap(structure: string, offset: number, owner: string): never {
    this.#session.report(
      { kind: "io-error", severity: "error", structure, offset },
      () => `ERROR: Could not write ${structure}; it overlaps with the ${owner}: Input/output error`,
    );
    throw new CheckStopped("Input/output error");
  }
}

function flagged(high: number, refcount: number): number {
  return (refcount === 1 ? high | COPIED : high & ~COPIED) >>> 0;
}

function isAllocated(session: CheckSession, high: number, low: number): boolean {
  if ((high & COMPRESSED) !== 0) return false;
  const empty = (high & OFFSET_HIGH) === 0 && (low & ~0x1ff) === 0;
  if (!empty) return true;
  const zeroFlag = !session.extendedL2 && (low & ZERO) !== 0;
  return session.hasDataFile && !zeroFlag && high > 0x7fff_ffff;
}
