import { viewOf, writeU64 } from "../../../base/bytes.js";
import { ZcowError } from "../../../base/errors.js";
import { alignUp } from "../../../base/integers.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { MiB } from "../../../base/units.js";
import type { Storage } from "../../../storage/storage.js";
import type { CheckSession } from "../check/check-session.js";
import { TableVisits } from "../check/table-visits.js";
import { compressedLength, compressedOffset, l1Offset, l2Offset } from "../entries.js";
import { SNAPSHOT_ENTRY_MIN_BYTES, TABLE_ENTRY_BYTES } from "../limits.js";
import { writePointerTableBytes } from "../write-pointer-table.js";
import { type HeaderOffsets, patchHeader } from "./header-offsets.js";

/** What a single cluster holds: guest data may need other treatment on the way than metadata. */
export type ClusterKind = "L2 table" | "refcount block" | "guest data" | "bitmap data";

/**
 * Sees every reference of an image, and says where what it leads to lies now: the same offset, or another one, which is then
 * stored instead. Offsets and lengths in bytes.
 */
export interface ReferenceVisitor {
  /** A structure that lies in one piece and has one reference. */
  region(name: string, offset: number, length: number): number;
  /** `times`: how many references the stored one counts as, where the table that holds it is shared itself. */
  cluster(kind: ClusterKind, offset: number, times: number): number;
  /** Data of a compressed cluster; a new offset must have the same place inside its sector. */
  compressed(offset: number, length: number, times: number): number;
}

const TWO_32 = 0x1_0000_0000;
const COMPRESSED_HIGH = 0x4000_0000;
const OFFSET_HIGH = 0x00ff_ffff;
const FLAGS_LOW = 0x1ff;
const BITMAP_ENTRY_BYTES = 24;
/** Tables are gone through in pieces of this size, or of a cluster where that is larger. */
const PIECE_BYTES = MiB / 4;

/**
 * Goes through all references of a sound image once, and stores those that `visitor` changes. Tables are read where the visitor says
 * that they lie, so those that have moved are changed at their new place and the old copies stay whole.
 * Throws `IMAGE_CORRUPT` for two references to one structure that can only have one.
 */
export class ReferenceWalk {
  readonly #session: CheckSession;
  readonly #storage: Storage;
  readonly #visitor: ReferenceVisitor;
  readonly #tables = new TableVisits();
  readonly #regions = new Set<number>();

  constructor(session: CheckSession, visitor: ReferenceVisitor) {
    this.#session = session;
    this.#storage = session.storage;
    this.#visitor = visitor;
  }

  async run(): Promise<void> {
    const { header, geometry } = this.#session;
    const { zoned, cryptHeader, bitmaps } = header;
    const l1Bytes = header.l1Size * TABLE_ENTRY_BYTES;
    const l1TableOffset = this.#region("L1 table", header.l1TableOffset, l1Bytes);
    const tableBytes = header.refcountTableClusters * geometry.clusterSize;
    const refcountTableOffset = this.#region("refcount table", header.refcountTableOffset, tableBytes);
    const snapshotBytes = this.#session.snapshotTableLength;
    const snapshotsOffset = this.#region("snapshot table", header.snapshotsOffset, snapshotBytes);
    const offsets: HeaderOffsets = {
      l1TableOffset,
      refcountTableOffset,
      snapshotsOffset,
      cryptHeader: cryptHeader && this.#region("encryption header", cryptHeader.offset, cryptHeader.length),
      bitmaps: bitmaps && this.#region("bitmap directory", bitmaps.offset, bitmaps.length),
      writePointers:
        zoned?.tableOffset === undefined
          ? undefined
          : this.#region("write-pointer table", zoned.tableOffset, writePointerTableBytes(zoned.zoneCount)),
    };
    await this.#refcountTable(refcountTableOffset, tableBytes);
    await this.#l1Table(l1TableOffset, l1Bytes);
    await this.#snapshots(snapshotsOffset, snapshotBytes);
    if (bitmaps !== undefined && offsets.bitmaps !== undefined) await this.#bitmaps(offsets.bitmaps, bitmaps.length);
    await patchHeader(this.#storage, header, offsets);
  }

  #region(name: string, offset: number, length: number): number {
    if (length === 0) return offset;
    if (this.#regions.has(offset)) {
      throw new ZcowError("IMAGE_CORRUPT", `The ${name} at file offset ${offset} has two references`, {
        data: { structure: name, offset, path: this.#storage.name },
      });
    }
    this.#regions.add(offset);
    return this.#visitor.region(name, offset, length);
  }

  async #refcountTable(at: number, length: number): Promise<void> {
    await this.#pieces(at, length, (view) => {
      let changed = false;
      for (let entry = 0; entry < view.byteLength; entry += TABLE_ENTRY_BYTES) {
        changed = this.#alignedEntry("refcount block", view, entry, 1) || changed;
      }
      return changed;
    });
  }

  async #l1Table(at: number, length: number): Promise<void> {
    await this.#pieces(at, length, async (view) => {
      let changed = false;
      for (let entry = 0; entry < view.byteLength; entry += TABLE_ENTRY_BYTES) {
        const old = l1Offset(view.getUint32(entry), view.getUint32(entry + 4));
        if (old === 0) continue;
        changed = this.#alignedEntry("L2 table", view, entry, 1) || changed;
        const place = l1Offset(view.getUint32(entry), view.getUint32(entry + 4));
        await this.#l2Table(old / this.#session.geometry.clusterSize, place);
      }
      return changed;
    });
  }

  /** Each table is gone through once, for all L1 entries that share it. */
  async #l2Table(cluster: number, place: number): Promise<void> {
    if (this.#tables.visit(cluster) > 1) return;
    const { clusterSize, clusterBits, l2EntrySize } = this.#session.geometry;
    const times = this.#session.counts.get(cluster);
    await this.#pieces(place, clusterSize, (view) => {
      let changed = false;
      for (let entry = 0; entry < view.byteLength; entry += l2EntrySize) {
        const high = view.getUint32(entry);
        const isChanged =
          (high & COMPRESSED_HIGH) === 0
            ? this.#alignedEntry("guest data", view, entry, times)
            : this.#compressedEntry(view, entry, clusterBits, times);
        changed = isChanged || changed;
      }
      return changed;
    });
  }

  #alignedEntry(kind: ClusterKind, view: DataView, at: number, times: number): boolean {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    const old = l2Offset(high, low);
    if (old === 0) return false;
    const place = this.#visitor.cluster(kind, old, times);
    if (place === old) return false;
    view.setUint32(at, ((high & ~OFFSET_HIGH) | Math.floor(place / TWO_32)) >>> 0);
    view.setUint32(at + 4, (place % TWO_32) + (low & FLAGS_LOW));
    return true;
  }

  #compressedEntry(view: DataView, at: number, clusterBits: number, times: number): boolean {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    const old = compressedOffset(high, low, clusterBits);
    const place = this.#visitor.compressed(old, compressedLength(high, low, clusterBits), times);
    if (place === old) return false;
    view.setUint32(at, (high & ~(2 ** (38 - clusterBits) - 1)) + Math.floor(place / TWO_32));
    view.setUint32(at + 4, place % TWO_32);
    return true;
  }

  async #snapshots(at: number, length: number): Promise<void> {
    if (length === 0) return;
    const bytes = await this.#read(at, length);
    const view = viewOf(bytes);
    let changed = false;
    for (let index = 0, entry = 0; index < this.#session.header.snapshotCount; index++) {
      const old = Number(view.getBigUint64(entry));
      const l1Bytes = view.getUint32(entry + 8) * TABLE_ENTRY_BYTES;
      const place = this.#region(`L1 table of snapshot ${index + 1}`, old, l1Bytes);
      if (place !== old) writeU64(view, entry, place);
      changed ||= place !== old;
      await this.#l1Table(place, l1Bytes);
      const texts = view.getUint16(entry + 12) + view.getUint16(entry + 14);
      entry = alignUp(entry + SNAPSHOT_ENTRY_MIN_BYTES + view.getUint32(entry + 36) + texts, 8);
    }
    if (changed) await this.#write(at, bytes);
  }

  async #bitmaps(at: number, length: number): Promise<void> {
    const bytes = await this.#read(at, length);
    const view = viewOf(bytes);
    let changed = false;
    for (let entry = 0; entry < length; ) {
      const old = Number(view.getBigUint64(entry));
      const tableBytes = view.getUint32(entry + 8) * TABLE_ENTRY_BYTES;
      const place = this.#region("bitmap table", old, tableBytes);
      if (place !== old) writeU64(view, entry, place);
      changed ||= place !== old;
      await this.#bitmapTable(place, tableBytes);
      entry = alignUp(entry + BITMAP_ENTRY_BYTES + view.getUint32(entry + 20) + view.getUint16(entry + 18), 8);
    }
    if (changed) await this.#write(at, bytes);
  }

  async #bitmapTable(at: number, length: number): Promise<void> {
    await this.#pieces(at, length, (view) => {
      let changed = false;
      for (let entry = 0; entry < view.byteLength; entry += TABLE_ENTRY_BYTES) {
        changed = this.#alignedEntry("bitmap data", view, entry, 1) || changed;
      }
      return changed;
    });
  }

  /** Reads [at, at + length) piece by piece, and writes the pieces that `change` has changed. */
  async #pieces(at: number, length: number, change: (view: DataView) => boolean | Promise<boolean>): Promise<void> {
    const most = Math.max(PIECE_BYTES, this.#session.geometry.clusterSize);
    for (let done = 0; done < length; done += most) {
      const bytes = await this.#read(at + done, Math.min(most, length - done));
      const result = change(viewOf(bytes));
      if (isPromise(result) ? await result : result) await this.#write(at + done, bytes);
    }
  }

  async #read(at: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    const wait = this.#storage.read(at, bytes);
    if (isPromise(wait)) await wait;
    return bytes;
  }

  async #write(at: number, bytes: Uint8Array): Promise<void> {
    const wait = this.#storage.write(at, bytes);
    if (isPromise(wait)) await wait;
  }
}
