import { ZcowError } from "../../../base/errors.js";
import { ceilDiv } from "../../../base/integers.js";
import { isPromise, type MaybePromise } from "../../../base/maybe-promise.js";
import type { Storage } from "../../../storage/storage.js";
import { isL1EntryCorrupt, l1Offset } from "../entries.js";
import { AUTOCLEAR, INCOMPATIBLE } from "../features.js";
import { type Qcow2Geometry, qcow2Geometry } from "../geometry.js";
import type { Qcow2Header } from "../header.js";
import { readHeader } from "../header-read.js";
import { TABLE_ENTRY_BYTES } from "../limits.js";
import { repairDirty } from "../open.js";
import { MetadataOwners, OWNER_HEADER, OWNER_L1, OWNER_L2, OWNER_REFBLOCK, OWNER_REFTABLE } from "../overlap.js";
import { type RootTable, readL1 } from "../root-table.js";
import { sessionOf } from "../session.js";
import { readSnapshotTable, type SnapshotTable } from "../snapshots/snapshot-table.js";
import { writePointerTableBytes } from "../write-pointer-table.js";
import { NewRefcounts } from "./new-refcounts.js";
import { RefcountSource } from "./refcount-source.js";
import { switchTables } from "./switch-header.js";

/** Autoclear features that hold on as long as the guest's data stay the same, as they do in every rewrite. */
const KEPT_AUTOCLEAR = AUTOCLEAR.bitmaps | AUTOCLEAR.rawExternalData;

/** Fields of the header that a rewrite changes; those of the refcount table follow from it. */
export type HeaderChange = Partial<
  Pick<Qcow2Header, "size" | "l1Size" | "l1TableOffset" | "snapshotCount" | "snapshotsOffset">
>;

/**
 * An image that nobody uses, whose tables are rewritten as a whole: snapshots, and the width of reference counts.
 *
 *     step                                        | a crash in this step leaves
 *     --------------------------------------------+------------------------------------------------------------
 *     new L2, L1, snapshot and refcount tables    | the old image: all of it went to clusters that are free in it
 *     written to free clusters                    |
 *     storage flush                               | the same
 *     first sector of the header: the offsets of  | the old image or the new one, both whole, without even a leak
 *     all new tables; storage flush               |
 *     holes punched where clusters became free    | the new image
 *
 * No table in use is changed in place, and no cluster that the old image uses is written.
 */
export class ImageAtRest {
  readonly storage: Storage;
  readonly header: Qcow2Header;
  readonly geometry: Qcow2Geometry;
  readonly l1: RootTable;
  readonly snapshots: SnapshotTable;
  readonly counts: NewRefcounts;

  private constructor(
    storage: Storage,
    header: Qcow2Header,
    geometry: Qcow2Geometry,
    l1: RootTable,
    snapshots: SnapshotTable,
    counts: NewRefcounts,
  ) {
    this.storage = storage;
    this.header = header;
    this.geometry = geometry;
    this.l1 = l1;
    this.snapshots = snapshots;
    this.counts = counts;
  }

  /**
   * Reads what a rewrite needs; a dirty image is repaired first. `refcountOrder`: the width that counts are to have. Throws the
   * `QCOW2_*` codes of the header, `QCOW2_SNAPSHOT_TABLE`, `READ_ONLY`, `IMAGE_CORRUPT`. Nothing has been changed then.
   */
  static async open(storage: Storage, refcountOrder?: number): Promise<ImageAtRest> {
    if (!storage.capabilities.writable) {
      throw new ZcowError("READ_ONLY", `${storage.name} is open for reading only`, { data: { path: storage.name } });
    }
    let header = await readHeader(storage, { writable: true });
    if (sessionOf(header) !== undefined) {
      const { resumeSession } = await import("../resume-session.js");
      header = await resumeSession(storage, header, () => undefined);
    }
    if ((header.features.incompatible & INCOMPATIBLE.dirty) !== 0n) header = await repairDirty(storage, header);
    const geometry = geometryOf(header, header.refcountOrder);
    const l1 = await readL1(storage, header);
    const snapshots = await readSnapshotTable(storage, header);
    const source = await RefcountSource.open(storage, geometry, header);
    const owners = metadataOwners(storage, header, geometry, l1, snapshots, source);
    const target = geometryOf(header, refcountOrder ?? header.refcountOrder);
    const counts = new NewRefcounts(storage, source, geometry, target, owners);
    return new ImageAtRest(
      storage,
      { ...header, refcountOrder: target.refcountOrder },
      geometry,
      l1,
      snapshots,
      counts,
    );
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    const wait = this.storage.read(offset, bytes);
    if (isPromise(wait)) await wait;
    return bytes;
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    const wait = this.storage.write(offset, bytes);
    if (isPromise(wait)) await wait;
  }

  /** Writes a table to clusters of its own, counted once; the rest of the last one is zeros. Returns its file offset, 0 when it is empty. */
  async place(bytes: Uint8Array): Promise<number> {
    if (bytes.length === 0) return 0;
    const { clusterSize } = this.geometry;
    const clusters = ceilDiv(bytes.length, clusterSize);
    const offset = (await this.counts.allocate(clusters)) * clusterSize;
    const padded = new Uint8Array(clusters * clusterSize);
    padded.set(bytes);
    await this.write(offset, padded);
    return offset;
  }

  /** Takes one reference from each cluster of a table. */
  drop(offset: number, length: number): MaybePromise<void> {
    if (length === 0) return undefined;
    const { clusterSize } = this.geometry;
    return this.counts.add(offset / clusterSize, ceilDiv(length, clusterSize), -1);
  }

  /** Puts everything in force with the header fields of `change`, and gives free clusters back to the host. */
  async commit(change: HeaderChange, onProgress?: (done: number) => void): Promise<void> {
    const table = await this.counts.finish(onProgress);
    const { features } = this.header;
    await switchTables(this.storage, {
      ...this.header,
      ...change,
      features: { ...features, autoclear: features.autoclear & KEPT_AUTOCLEAR },
      refcountTableOffset: table.offset,
      refcountTableClusters: table.clusters,
    });
    await this.#punch();
  }

  /** The change is made; space that cannot be given back to the host stays free in the file. */
  async #punch(): Promise<void> {
    if (!this.storage.capabilities.discard) return;
    const { clusterSize } = this.geometry;
    try {
      for (const { first, count } of await this.counts.freed()) {
        const wait = this.storage.discard(first * clusterSize, count * clusterSize);
        if (isPromise(wait)) await wait;
      }
    } catch {
      // As above.
    }
  }
}

/** What follows from a header when its counts have the width `refcountOrder`. */
export function geometryOf(header: Qcow2Header, refcountOrder: number): Qcow2Geometry {
  const { size, version, clusterBits, features } = header;
  const extendedL2 = (features.incompatible & INCOMPATIBLE.extendedL2) !== 0n;
  const externalData = (features.incompatible & INCOMPATIBLE.externalData) !== 0n;
  return qcow2Geometry({ size, version, clusterBits, refcountOrder, extendedL2, externalData });
}

/** Everything that must not be overwritten even if its counts are wrong. */
function metadataOwners(
  storage: Storage,
  header: Qcow2Header,
  geometry: Qcow2Geometry,
  l1: RootTable,
  snapshots: SnapshotTable,
  refcounts: RefcountSource,
): MetadataOwners {
  const { clusterSize } = geometry;
  const owners = new MetadataOwners(geometry);
  owners.claim(OWNER_HEADER, 0, clusterSize);
  owners.claim(OWNER_L1, l1.at, l1.entries * TABLE_ENTRY_BYTES);
  owners.claim(OWNER_REFTABLE, refcounts.table.at, refcounts.table.bytes.length);
  for (let index = 0; index < l1.entries; index++) {
    const high = l1.high(index);
    const low = l1.low(index);
    if ((high | low) === 0 || isL1EntryCorrupt(high, low, clusterSize)) continue;
    owners.claim(OWNER_L2, l1Offset(high, low), clusterSize);
  }
  for (let index = 0; index < refcounts.table.entries; index++) {
    const offset = refcounts.blockOffset(index);
    if (offset !== 0) owners.claim(OWNER_REFBLOCK, offset, clusterSize);
  }
  const { zoned, cryptHeader, bitmaps } = header;
  if (zoned?.tableOffset !== undefined) {
    owners.protect("write-pointer table", zoned.tableOffset, writePointerTableBytes(zoned.zoneCount));
  }
  if (cryptHeader !== undefined) owners.protect("encryption header", cryptHeader.offset, cryptHeader.length);
  if (bitmaps !== undefined) owners.protect("bitmap directory", bitmaps.offset, bitmaps.length);
  if (snapshots.length > 0) owners.protect("snapshot table", header.snapshotsOffset, snapshots.length);
  if (owners.conflict === undefined) return owners;
  throw new ZcowError("IMAGE_CORRUPT", `${storage.name}: ${owners.conflict.message}`, {
    data: { ...owners.conflict.data, path: storage.name },
    ...(owners.conflict.stockText === undefined ? {} : { stockText: owners.conflict.stockText }),
  });
}
