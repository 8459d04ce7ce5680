import { viewOf } from "../../../base/bytes.js";
import { ceilDiv } from "../../../base/integers.js";
import type { Storage } from "../../../storage/storage.js";
import type { Preallocation } from "../create-layout.js";
import { entryHigh, entryLow } from "../entries.js";
import type { GuestData } from "../guest-data.js";
import { TABLE_ENTRY_BYTES } from "../limits.js";
import { activeL1, replaceActiveL1 } from "../snapshots/mapping-rewrite.js";
import type { ImageAtRest } from "./image-at-rest.js";
import { switchTables } from "./switch-header.js";
import { tableOf, visitReferences } from "./table-references.js";

/** A map of 32 subclusters in an extended L2 entry. */
const ALL_SUBCLUSTERS = 0xffff_ffff;

/** How a disk gets larger. */
export interface Growth {
  /** New size in bytes. */
  readonly size: number;
  readonly preallocation: Preallocation;
  /** Where guest bytes live. */
  readonly data: GuestData;
  /** Bytes of the backing image, which would show in the new part; 0 without one. */
  readonly backed: number;
  /** What the last cluster of the old disk is to hold, where the disk ends inside it and the backing image may show there. */
  readonly lastCluster: Uint8Array | undefined;
}

/**
 * Makes the disk larger; the new part reads as zeros. A crash leaves the old size or the new one. With `preallocation` every new
 * cluster gets its place: `falloc` and `full` also take the space on the host.
 */
export async function growDisk(image: ImageAtRest, growth: Growth): Promise<void> {
  const { geometry, storage, header, l1 } = image;
  const { size } = growth;
  const entries = ceilDiv(size, geometry.l2Coverage);
  const first = Math.floor(header.size / geometry.clusterSize);
  const past = lastMapped(geometry.clusterSize, growth);
  if (past <= first && entries <= l1.entries) {
    await switchTables(storage, { ...header, size });
    return;
  }
  const bytes = new Uint8Array(Math.max(entries, l1.entries) * TABLE_ENTRY_BYTES);
  bytes.set(activeL1(image));
  const end = await new GrowingTables(image, growth, bytes).map(first, past);
  const table = await replaceActiveL1(image, bytes);
  if (end > storage.size()) await storage.truncate(end);
  await growth.data.flush();
  await image.commit({ ...table, size });
}

/** The first cluster for which nothing has to be done. */
function lastMapped(clusterSize: number, { size, preallocation, backed }: Growth): number {
  return ceilDiv(preallocation === "off" ? Math.min(size, backed) : size, clusterSize);
}

/** The L2 tables of the new part, each at a new place. */
class GrowingTables {
  readonly #image: ImageAtRest;
  readonly #growth: Growth;
  readonly #l1: Uint8Array;
  /** Entries say that a cluster reads as zeros, whatever is stored in it: version 2 cannot. */
  readonly #isFlagged: boolean;
  /** Clusters are allocated. */
  readonly #isPlaced: boolean;
  #end = 0;

  constructor(image: ImageAtRest, growth: Growth, l1: Uint8Array) {
    this.#image = image;
    this.#growth = growth;
    this.#l1 = l1;
    const hasFlag = image.geometry.version === 3;
    this.#isPlaced = growth.preallocation !== "off" || !hasFlag;
    // Zeros on the host are not zeros to the guest where a cipher is between them.
    this.#isFlagged = hasFlag && (growth.preallocation === "off" || image.header.cryptMethod !== 0);
  }

  /** Maps the clusters of the guest [first, past) that are not mapped. Returns the end of the data in the image file. */
  async map(first: number, past: number): Promise<number> {
    const { l2Entries } = this.#image.geometry;
    for (let cluster = first; cluster < past; ) {
      const index = Math.floor(cluster / l2Entries);
      const next = Math.min(past, (index + 1) * l2Entries);
      await this.#fillTable(index, cluster - index * l2Entries, next - index * l2Entries);
      cluster = next;
    }
    return this.#end;
  }

  async #fillTable(index: number, from: number, to: number): Promise<void> {
    const { geometry, counts, storage } = this.#image;
    const { clusterSize, l2Entries, l2EntrySize } = geometry;
    const old = tableOf(viewOf(this.#l1), index, geometry, storage.size());
    const table = old === 0 ? new Uint8Array(clusterSize) : await this.#image.read(old, clusterSize);
    const { lastCluster } = this.#growth;
    const last = Math.floor(this.#image.header.size / clusterSize) - index * l2Entries;
    const replaced = lastCluster !== undefined && last >= from ? last : -1;
    if (lastCluster !== undefined && replaced !== -1) {
      await this.#replaceLast(table.subarray(last * l2EntrySize, (last + 1) * l2EntrySize), lastCluster);
    }
    await this.#mapEmpty(table, index, from, to);
    const place = await this.#image.place(table);
    if (old !== 0) await counts.add(old / clusterSize, 1, -1);
    viewOf(this.#l1).setUint32(index * TABLE_ENTRY_BYTES, entryHigh(place, true));
    viewOf(this.#l1).setUint32(index * TABLE_ENTRY_BYTES + 4, entryLow(place, false));
  }

  /** The cluster in which the old disk ends is written anew, with zeros behind its end. */
  async #replaceLast(entry: Uint8Array, contents: Uint8Array): Promise<void> {
    const { geometry, counts, header } = this.#image;
    const { clusterSize } = geometry;
    await visitReferences(entry, geometry, (first, count) => counts.add(first, count, -1));
    const guest = Math.floor(header.size / clusterSize) * clusterSize;
    const host = geometry.externalData ? guest : (await counts.allocate(1)) * clusterSize;
    await this.#growth.data.write(host, guest, contents);
    entry.fill(0);
    this.#setEntry(viewOf(entry), 0, host, false);
    if (!geometry.externalData) this.#end = Math.max(this.#end, host + clusterSize);
  }

  async #mapEmpty(table: Uint8Array, index: number, from: number, to: number): Promise<void> {
    const { geometry, counts } = this.#image;
    const { clusterSize, l2Entries, l2EntrySize, externalData } = geometry;
    const view = viewOf(table);
    const empty: number[] = [];
    for (let entry = from; entry < to; entry++) {
      const at = entry * l2EntrySize;
      const isEmpty = table.subarray(at, at + l2EntrySize).every((byte) => byte === 0);
      if (isEmpty) empty.push(entry);
    }
    const inFile = this.#isPlaced && !externalData && empty.length > 0;
    const first = inFile ? (await counts.allocate(empty.length)) * clusterSize : 0;
    const oldEnd = this.#image.storage.size();
    for (const [i, entry] of empty.entries()) {
      const guest = (index * l2Entries + entry) * clusterSize;
      const placed = externalData ? guest : first + i * clusterSize;
      const host = this.#isPlaced ? placed : 0;
      this.#setEntry(view, entry * l2EntrySize, host, this.#isFlagged);
      if (this.#isPlaced && !this.#isFlagged) await this.#zero(host, guest, oldEnd);
    }
    if (!inFile) return;
    const end = first + empty.length * clusterSize;
    await this.#takeSpace(first, end, oldEnd);
    this.#end = Math.max(this.#end, end);
  }

  #setEntry(view: DataView, at: number, host: number, zero: boolean): void {
    const isExtended = this.#image.geometry.l2EntrySize === 16;
    const isStored = host > 0 || (this.#isPlaced && this.#image.geometry.externalData);
    view.setUint32(at, entryHigh(host, isStored));
    view.setUint32(at + 4, entryLow(host, zero && !isExtended));
    if (isExtended) view.setUint32(at + (zero ? 8 : 12), ALL_SUBCLUSTERS);
  }

  /** A cluster of zeros to the guest, behind a cipher. The rest is zeros on the host. */
  async #zero(host: number, guest: number, oldEnd: number): Promise<void> {
    const { header, geometry } = this.#image;
    const { data, preallocation } = this.#growth;
    if (header.cryptMethod !== 0) await data.writeZeroes(host, guest, geometry.clusterSize);
    else if (preallocation === "off" && host < oldEnd && !geometry.externalData) {
      await data.writeZeroes(host, guest, geometry.clusterSize);
    }
  }

  /** Zeros in what the file had before; past its old end it is a hole, unless space is to be taken. */
  async #takeSpace(from: number, to: number, oldEnd: number): Promise<void> {
    const { preallocation } = this.#growth;
    const storage: Storage = this.#image.storage;
    if (preallocation === "off" || (this.#image.header.cryptMethod !== 0 && !this.#isFlagged)) return;
    const isSparse = preallocation === "metadata";
    const end = isSparse ? Math.min(to, oldEnd) : to;
    if (end > from) await storage.writeZeroes(from, end - from, { unmap: isSparse });
  }
}
