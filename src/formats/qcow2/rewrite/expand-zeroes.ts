import { viewOf } from "../../../base/bytes.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { entryHigh, entryLow, isCopied, l2Offset, ZERO_LOW } from "../entries.js";
import { TABLE_ENTRY_BYTES } from "../limits.js";
import { activeL1, readSnapshotL1, replaceActiveL1 } from "../snapshots/mapping-rewrite.js";
import { snapshotL1 } from "../snapshots/snapshot-lookup.js";
import { replaceSnapshotTable } from "../snapshots/table-rewrite.js";
import type { ImageAtRest } from "./image-at-rest.js";
import { tableOf } from "./table-references.js";

const COMPRESSED_HIGH = 0x4000_0000;

/**
 * Takes all zero clusters out of an image, which version 2 does not have, in the disk and in every snapshot. They become unallocated;
 * over a backing file, which would show there, clusters of zeros. Nothing happens to an image without them.
 */
export async function expandZeroClusters(image: ImageAtRest, onProgress: (done: number) => void): Promise<void> {
  const trees = image.snapshots.snapshots.length + 1;
  const tables = new ExpandedTables(image);
  const l1 = activeL1(image);
  let change = {};
  if (await tables.expandTree(l1)) change = await replaceActiveL1(image, l1);
  onProgress(1 / trees);
  let changedSnapshots = 0;
  const snapshots = [];
  for (const [index, snapshot] of image.snapshots.snapshots.entries()) {
    const place = snapshotL1(snapshot, image.header);
    const taken = await readSnapshotL1(image, place);
    if (await tables.expandTree(taken)) {
      const wait = image.drop(place.offset, taken.length);
      if (isPromise(wait)) await wait;
      snapshots.push({ ...snapshot, l1Offset: BigInt(await image.place(taken)) });
      changedSnapshots += 1;
    } else {
      snapshots.push(snapshot);
    }
    onProgress((index + 2) / trees);
  }
  if (changedSnapshots > 0) change = { ...change, ...(await replaceSnapshotTable(image, snapshots)) };
  if (Object.keys(change).length > 0) await image.commit(change);
}

/** L2 tables without zero clusters. Tables that several trees share stay shared, so counts and copied flags do not change. */
class ExpandedTables {
  readonly #image: ImageAtRest;
  /** New place of each table that had zero clusters, by its old one. */
  readonly #places = new Map<number, number>();
  readonly #plain = new Set<number>();

  constructor(image: ImageAtRest) {
    this.#image = image;
  }

  /** Changes the entries of an L1 table; returns whether it did. */
  async expandTree(l1: Uint8Array): Promise<boolean> {
    const { geometry, counts, storage } = this.#image;
    const view = viewOf(l1);
    let changed = false;
    for (let index = 0; index < l1.length / TABLE_ENTRY_BYTES; index++) {
      const table = tableOf(view, index, geometry, storage.size());
      if (table === 0 || this.#plain.has(table)) continue;
      const bytes = await this.#image.read(table, geometry.clusterSize);
      const zeroes = zeroEntries(bytes);
      if (zeroes.length === 0) {
        this.#plain.add(table);
        continue;
      }
      const isExclusive = isCopied(view.getUint32(index * TABLE_ENTRY_BYTES));
      const place = await this.#expandTable(table, bytes, zeroes, isExclusive);
      const wait = counts.add(table / geometry.clusterSize, 1, -1);
      if (isPromise(wait)) await wait;
      view.setUint32(index * TABLE_ENTRY_BYTES, entryHigh(place, isExclusive));
      view.setUint32(index * TABLE_ENTRY_BYTES + 4, entryLow(place, false));
      changed = true;
    }
    return changed;
  }

  /** The place of the table that stands for the one at `table`, with one reference more on it and on all it has that the old one has not. */
  async #expandTable(table: number, bytes: Uint8Array, zeroes: readonly number[], exclusive: boolean): Promise<number> {
    const { counts, geometry } = this.#image;
    const view = viewOf(bytes);
    for (const at of zeroes) {
      const host = l2Offset(view.getUint32(at), view.getUint32(at + 4));
      const wait = host === 0 ? undefined : counts.add(host / geometry.clusterSize, 1, -1);
      if (isPromise(wait)) await wait;
    }
    const known = this.#places.get(table);
    if (known !== undefined) {
      await this.#shareAgain(known, zeroes);
      return known;
    }
    for (const at of zeroes) {
      const host = await this.#cluster();
      view.setUint32(at, host === 0 ? 0 : entryHigh(host, exclusive));
      view.setUint32(at + 4, host === 0 ? 0 : entryLow(host, false));
    }
    const place = await this.#image.place(bytes);
    this.#places.set(table, place);
    return place;
  }

  /** A cluster of zeros, or 0 where nothing shows through an unallocated one. */
  async #cluster(): Promise<number> {
    const { header, geometry } = this.#image;
    return header.backingFileName === undefined ? 0 : this.#image.place(new Uint8Array(geometry.clusterSize));
  }

  async #shareAgain(place: number, zeroes: readonly number[]): Promise<void> {
    const { counts, geometry } = this.#image;
    await counts.add(place / geometry.clusterSize, 1, 1);
    if (this.#image.header.backingFileName === undefined) return;
    const view = viewOf(await this.#image.read(place, geometry.clusterSize));
    for (const at of zeroes) {
      await counts.add(l2Offset(view.getUint32(at), view.getUint32(at + 4)) / geometry.clusterSize, 1, 1);
    }
  }
}

/** Byte positions of the entries with the zero flag. */
function zeroEntries(table: Uint8Array): number[] {
  const view = viewOf(table);
  const found: number[] = [];
  for (let at = 0; at < table.length; at += TABLE_ENTRY_BYTES) {
    const isPlain = (view.getUint32(at) & COMPRESSED_HIGH) === 0;
    if (isPlain && (view.getUint32(at + 4) & ZERO_LOW) !== 0) found.push(at);
  }
  return found;
}
