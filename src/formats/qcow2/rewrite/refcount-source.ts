import { ZcowError } from "../../../base/errors.js";
import { isPromise } from "../../../base/maybe-promise.js";
import type { Storage } from "../../../storage/storage.js";
import type { Qcow2Geometry } from "../geometry.js";
import type { Qcow2Header } from "../header.js";
import { isReftableEntryCorrupt, reftableEntryOffset } from "../refcount-entries.js";
import { RootTable } from "../root-table.js";

/** The refcounts that the file holds, read block by block and never changed. One block is kept in memory. */
export class RefcountSource {
  readonly table: RootTable;
  readonly #storage: Storage;
  readonly #geometry: Qcow2Geometry;
  #index = -1;
  #block: Uint8Array | undefined;

  private constructor(storage: Storage, geometry: Qcow2Geometry, table: RootTable) {
    this.#storage = storage;
    this.#geometry = geometry;
    this.table = table;
  }

  /** Reads the refcount table; at most 8 MiB, which the header's own check bounds. */
  static async open(storage: Storage, geometry: Qcow2Geometry, header: Qcow2Header): Promise<RefcountSource> {
    const bytes = new Uint8Array(header.refcountTableClusters * geometry.clusterSize);
    const wait = storage.read(header.refcountTableOffset, bytes);
    if (isPromise(wait)) await wait;
    return new RefcountSource(storage, geometry, new RootTable(header.refcountTableOffset, bytes));
  }

  /** File offset of block `index`, 0 = none. Throws `IMAGE_CORRUPT`. */
  blockOffset(index: number): number {
    if (index >= this.table.entries) return 0;
    const high = this.table.high(index);
    const low = this.table.low(index);
    const offset = reftableEntryOffset(high, low);
    const isUsable = !isReftableEntryCorrupt(high, low, this.#geometry.clusterSize);
    if (isUsable && (offset === 0 || offset < this.#storage.size())) return offset;
    throw new ZcowError(
      "IMAGE_CORRUPT",
      `Refcount table entry ${index} is 0x${offset.toString(16)}, not a multiple of the cluster size inside the file; check the image first`,
      { data: { structure: "refcount table", field: `entry ${index}`, value: offset, limit: this.#storage.size() } },
    );
  }

  /** The block as it is in the file; undefined when there is none, and all its counts are 0. The bytes must not be changed. */
  async block(index: number): Promise<Uint8Array | undefined> {
    if (this.#index === index) return this.#block;
    const offset = this.blockOffset(index);
    let block: Uint8Array | undefined;
    if (offset !== 0) {
      block = new Uint8Array(this.#geometry.clusterSize);
      const wait = this.#storage.read(offset, block);
      if (isPromise(wait)) await wait;
    }
    this.#index = index;
    this.#block = block;
    return block;
  }
}
