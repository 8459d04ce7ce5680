import { viewOf } from "../../../base/bytes.js";
import { isZcowError } from "../../../base/errors.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { KiB } from "../../../base/units.js";
import type { Storage } from "../../../storage/storage.js";
import { readDirectory } from "../bitmaps/load-bitmaps.js";
import { ClusterMap } from "../cluster-map.js";
import { l1Offset } from "../entries.js";
import type { Qcow2Header } from "../header.js";
import { readUnresolvedHeader } from "../header-read.js";
import { MAX_L1_BYTES, TABLE_ENTRY_BYTES } from "../limits.js";
import { readSnapshotTable } from "../snapshots/snapshot-table.js";
import { writePointerTableBytes } from "../write-pointer-table.js";
import { resolveZonedExtension } from "../zoned-resolve.js";

/** A part of the image file that is metadata. Bytes. */
export interface MetadataPiece {
  readonly offset: number;
  readonly length: number;
}

/** What of an image is metadata, as far as it could be found. */
export interface MetadataPlan {
  /** Ascending, without overlap, inside the file. */
  readonly pieces: readonly MetadataPiece[];
  /** What could not be followed, and why. */
  readonly notes: readonly string[];
}

/** Of an image whose header cannot be read: header, extensions and names, and nothing that a guest wrote. */
const UNREADABLE_HEADER_BYTES = 4096;
/** Bytes of tables of tables that are followed: a small file could name the same large one over and over. */
const MAX_TABLE_BYTES = 2 ** 30;
/** The fixed part of a LUKS header, without key material. */
const LUKS_HEADER_BYTES = 4 * KiB;

/**
 * Finds the metadata of an image that may be damaged: references that lead nowhere are noted and left out, and no table is
 * taken for sound. A damaged reference to a table may lead to data, which is then taken for a table.
 *
 * `withKeys`: the key slots of LUKS as well.
 */
export async function metadataPieces(storage: Storage, withKeys: boolean): Promise<MetadataPlan> {
  const finder = new MetadataFinder(storage);
  await finder.find(withKeys);
  return finder.plan();
}

class MetadataFinder {
  readonly #storage: Storage;
  readonly #notes: string[] = [];
  /** Clusters that are metadata, by the index in the file. */
  readonly #clusters = new ClusterMap();
  readonly #ranges: MetadataPiece[] = [];
  readonly #taken: number[] = [];
  #clusterSize = UNREADABLE_HEADER_BYTES;
  #followed = 0;

  constructor(storage: Storage) {
    this.#storage = storage;
  }

  async find(withKeys: boolean): Promise<void> {
    let unresolved: Awaited<ReturnType<typeof readUnresolvedHeader>>;
    try {
      unresolved = await readUnresolvedHeader(this.#storage, { dataFileGiven: true });
    } catch (error) {
      this.#note("header", error);
      this.#ranges.push({ offset: 0, length: Math.min(UNREADABLE_HEADER_BYTES, this.#storage.size()) });
      return;
    }
    const { header, source } = unresolved;
    this.#clusterSize = 2 ** header.clusterBits;
    this.#take("header", 0, this.#clusterSize);
    const { l1TableOffset, l1Size, refcountTableOffset, refcountTableClusters, cryptHeader } = header;
    await this.#tableOfTables("L1 table", l1TableOffset, l1Size);
    const entries = (refcountTableClusters * this.#clusterSize) / TABLE_ENTRY_BYTES;
    await this.#tableOfTables("refcount table", refcountTableOffset, entries);
    await this.#attempt("zoned extension", async () => {
      const zoned = await resolveZonedExtension(header, source);
      if (zoned?.tableOffset === undefined) return;
      this.#take("write-pointer table", zoned.tableOffset, writePointerTableBytes(zoned.zoneCount));
    });
    if (cryptHeader !== undefined) {
      const length = withKeys ? cryptHeader.length : Math.min(LUKS_HEADER_BYTES, cryptHeader.length);
      this.#range("encryption header", cryptHeader.offset, length);
    }
    // Neither looks at the zones.
    await this.#snapshots({ ...header, zoned: undefined });
    await this.#bitmaps({ ...header, zoned: undefined });
  }

  plan(): MetadataPlan {
    const clusters = this.#taken.map((cluster) => ({ offset: cluster * this.#clusterSize, length: this.#clusterSize }));
    const sorted = [...clusters, ...this.#ranges].toSorted((a, b) => a.offset - b.offset);
    const pieces: MetadataPiece[] = [];
    let end = 0;
    for (const { offset, length } of sorted) {
      const from = Math.max(end, offset);
      const to = Math.min(offset + length, this.#storage.size());
      if (to <= from) continue;
      const last = pieces.at(-1);
      if (last !== undefined && from === end) pieces[pieces.length - 1] = { ...last, length: to - last.offset };
      else pieces.push({ offset: from, length: to - from });
      end = to;
    }
    return { pieces, notes: this.#notes };
  }

  async #snapshots(header: Qcow2Header): Promise<void> {
    await this.#attempt("snapshot table", async () => {
      const { snapshots, length } = await readSnapshotTable(this.#storage, header);
      this.#take("snapshot table", header.snapshotsOffset, length);
      for (const { id, l1Offset: offset, l1Entries } of snapshots) {
        await this.#tableOfTables(`L1 table of snapshot ${id}`, Number(offset), l1Entries);
      }
    });
  }

  async #bitmaps(header: Qcow2Header): Promise<void> {
    await this.#attempt("bitmap directory", async () => {
      const { bitmaps } = header;
      if (bitmaps === undefined) return;
      this.#take("bitmap directory", bitmaps.offset, bitmaps.length);
      for (const { name, tableOffset, tableEntries } of await readDirectory(this.#storage, header)) {
        await this.#tableOfTables(`table of bitmap '${name}'`, tableOffset, tableEntries);
      }
    });
  }

  /** A table, and the clusters that its entries refer to. */
  async #tableOfTables(what: string, offset: number, entries: number): Promise<void> {
    await this.#attempt(what, async () => {
      const whole = Math.min(entries * TABLE_ENTRY_BYTES, MAX_L1_BYTES);
      const length = Math.min(whole, this.#storage.size() - offset);
      if (!this.#take(what, offset, whole) || length <= 0) return;
      this.#followed += length;
      if (this.#followed > MAX_TABLE_BYTES) {
        this.#notes.push(`${what}: not followed, the tables before it have ${MAX_TABLE_BYTES} bytes already`);
        return;
      }
      const bytes = new Uint8Array(length - (length % TABLE_ENTRY_BYTES));
      const wait = this.#storage.read(offset, bytes);
      if (isPromise(wait)) await wait;
      const view = viewOf(bytes);
      for (let at = 0; at < bytes.length; at += TABLE_ENTRY_BYTES) {
        const target = l1Offset(view.getUint32(at), view.getUint32(at + 4));
        if (target !== 0) this.#take(`entry ${at / TABLE_ENTRY_BYTES} of the ${what}`, target, this.#clusterSize);
      }
    });
  }

  /** False when there is nothing of it in the file. */
  #take(what: string, offset: number, length: number): boolean {
    if (length === 0) return true;
    if (offset % this.#clusterSize !== 0 || offset >= this.#storage.size()) {
      this.#notes.push(`${what}: offset ${offset} is not that of a cluster in the file`);
      return false;
    }
    const past = Math.min(offset + length, this.#storage.size());
    for (let cluster = offset / this.#clusterSize; cluster * this.#clusterSize < past; cluster++) {
      if (this.#clusters.get(cluster) !== 0) continue;
      this.#clusters.set(cluster, 1);
      this.#taken.push(cluster);
    }
    return true;
  }

  #range(what: string, offset: number, length: number): void {
    if (offset < this.#storage.size()) this.#ranges.push({ offset, length });
    else this.#notes.push(`${what}: offset ${offset} is past the end of the file`);
  }

  async #attempt(what: string, step: () => Promise<void>): Promise<void> {
    try {
      await step();
    } catch (error) {
      this.#note(what, error);
    }
  }

  #note(what: string, error: unknown): void {
    if (!isZcowError(error) || error.category === "storage") throw error;
    this.#notes.push(`${what}: ${error.message}`);
  }
}
