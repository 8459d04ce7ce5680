import { viewOf } from "../../../base/bytes.js";
import { isPromise } from "../../../base/maybe-promise.js";
import type { CheckSession } from "./check-session.js";

const TWO_32 = 0x1_0000_0000;
const OFFSET_HIGH = 0x00ff_ffff;

/** Finds write pointers anew from what the L2 tables map. Keeps the last table read, because neighbours share it. */
export class ZoneReconstruction {
  readonly #session: CheckSession;
  #index = -1;
  #table: DataView | undefined;

  constructor(session: CheckSession) {
    this.#session = session;
  }

  /**
   * Where the write pointer of the zone [start, end) has to be so that it covers all that was stored there: the end of
   * its last mapped cluster (data, compressed, or zeros), at most `end`. Bytes of the virtual disk.
   */
  async endOfData(start: number, end: number): Promise<number> {
    const { clusterSize, l2Coverage } = this.#session.geometry;
    for (let index = Math.floor((end - 1) / l2Coverage); index >= 0 && (index + 1) * l2Coverage > start; index--) {
      const table = await this.#tableAt(index);
      if (table === undefined) continue;
      const first = Math.max(start, index * l2Coverage);
      const last = Math.min(end, (index + 1) * l2Coverage);
      for (let at = Math.floor((last - 1) / clusterSize) * clusterSize; at >= first; at -= clusterSize) {
        if (this.#isMapped(table, (at % l2Coverage) / clusterSize)) return Math.min(at + clusterSize, end);
      }
    }
    return start;
  }

  async #tableAt(index: number): Promise<DataView | undefined> {
    if (index !== this.#index) {
      this.#table = await this.#readTable(index);
      this.#index = index;
    }
    return this.#table;
  }

  async #readTable(index: number): Promise<DataView | undefined> {
    const { header, geometry } = this.#session;
    if (index >= header.l1Size) return undefined;
    const entry = new Uint8Array(8);
    await this.#read(header.l1TableOffset + index * 8, entry);
    const view = viewOf(entry);
    const offset = (view.getUint32(0) & OFFSET_HIGH) * TWO_32 + ((view.getUint32(4) & ~0x1ff) >>> 0);
    if (offset === 0 || offset % geometry.clusterSize !== 0 || offset >= this.#session.fileLength) return undefined;
    const table = new Uint8Array(geometry.clusterSize);
    await this.#read(offset, table);
    return viewOf(table);
  }

  async #read(at: number, into: Uint8Array): Promise<void> {
    const wait = this.#session.read(at, into, "zone reconstruction");
    if (isPromise(wait)) await wait;
  }

  #isMapped(table: DataView, index: number): boolean {
    const { l2EntrySize } = this.#session.geometry;
    for (let at = index * l2EntrySize; at < (index + 1) * l2EntrySize; at += 4) {
      if (table.getUint32(at) !== 0) return true;
    }
    return false;
  }
}
