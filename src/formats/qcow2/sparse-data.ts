import { viewOf } from "../../base/bytes.js";
import { isPromise } from "../../base/maybe-promise.js";
import type { BlockExtent } from "../../block/block-device.js";
import type { ImageState } from "./image-state.js";
import { getRefcount, isReftableEntryCorrupt, reftableEntryOffset } from "./refcount-entries.js";

/**
 * Data clusters that the file system holds no data for. An image made with preallocated metadata maps every cluster
 * and has stored none of them; only the holes of the file tell. Asking for holes costs a call per run, so they are asked for
 * only where far more clusters are counted than the file takes on its disk: the rule of the stock tools.
 */
export class SparseData {
  readonly #state: ImageState;
  #expected: Promise<boolean> | undefined;

  constructor(state: ImageState) {
    this.#state = state;
  }

  /** `extent`, cut at the borders of holes where it is worth looking; holes read as zeros. */
  async *split(extent: BlockExtent): AsyncGenerator<BlockExtent> {
    const { hostOffset } = extent;
    const { inImage } = this.#state.data;
    if (!inImage || extent.kind !== "data" || hostOffset === undefined || !(await this.#isExpected())) {
      yield extent;
      return;
    }
    for await (const run of this.#state.storage.extents(hostOffset, extent.length)) {
      const offset = extent.offset + run.offset - hostOffset;
      yield { ...extent, offset, length: run.length, hostOffset: run.offset, zero: run.hole };
    }
  }

  /** Found out once: it reads all refcounts of an image that has many. */
  #isExpected(): Promise<boolean> {
    this.#expected ??= this.#compare();
    return this.#expected;
  }

  async #compare(): Promise<boolean> {
    const { storage, geometry } = this.#state;
    const allocated = storage.capabilities.holes ? storage.allocatedSize() : undefined;
    if (allocated === undefined) return false;
    const stored = Math.floor(allocated / geometry.clusterSize);
    const enough = Math.max(Math.floor((stored * 10) / 9), stored + 2);
    const clusters = Math.ceil(storage.size() / geometry.clusterSize);
    return clusters >= enough && (await this.#countsReach(enough, clusters, allocated));
  }

  /**
   * True when at least `enough` of the first `clusters` clusters are counted. A few counts not yet in the file make no
   * difference. Blocks worth reading are stored: more than `allocated` bytes of them are those of a hostile image.
   */
  async #countsReach(enough: number, clusters: number, allocated: number): Promise<boolean> {
    const { geometry, header } = this.#state;
    const { refcountsPerBlock, clusterSize, refcountOrder } = geometry;
    const { refcountTableOffset, refcountTableClusters } = header.current;
    const table = viewOf(await this.#read(refcountTableOffset, refcountTableClusters * clusterSize));
    const blocks = Math.min(table.byteLength / 8, Math.ceil(clusters / refcountsPerBlock));
    let counted = 0;
    let left = allocated;
    for (let index = 0; index < blocks && counted < enough; index++) {
      const high = table.getUint32(index * 8);
      const low = table.getUint32(index * 8 + 4);
      if ((high | low) === 0 || isReftableEntryCorrupt(high, low, clusterSize)) continue;
      left -= clusterSize;
      if (left < 0) return false;
      const block = await this.#read(reftableEntryOffset(high, low), clusterSize);
      const entries = Math.min(refcountsPerBlock, clusters - index * refcountsPerBlock);
      for (let entry = 0; entry < entries; entry++) if (getRefcount(block, entry, refcountOrder) !== 0) counted++;
    }
    return counted >= enough;
  }

  async #read(at: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    const wait = this.#state.storage.read(at, bytes);
    if (isPromise(wait)) await wait;
    return bytes;
  }
}
