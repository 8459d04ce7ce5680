import { viewOf } from "../../../base/bytes.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { TABLE_ENTRY_BYTES } from "../limits.js";
import { storedMap } from "../subclusters.js";
import type { CheckSession } from "./check-session.js";

const TWO_32 = 0x1_0000_0000;
const OFFSET_HIGH = 0x00ff_ffff;

/** Finds write pointers anew from what the L2 tables map. Keeps the last table read, because neighbours share it. */
export class ZoneReconstruction {
  readonly #session: CheckSession;
  #index = -1;
  #table: DataView | undefined;
  #l1: DataView | undefined;

  constructor(session: CheckSession) {
    this.#session = session;
  }

  /**
   * Where the write pointer of the zone [start, end) has to be so that it covers all that was stored there: the end of
   * its last cluster, or subcluster, with data, compressed or not, at most `end`. Bytes of the virtual disk.
   */
  async endOfData(start: number, end: number): Promise<number> {
    const { clusterSize, l2Coverage } = this.#session.geometry;
    for (let index = Math.floor((end - 1) / l2Coverage); index >= 0 && (index + 1) * l2Coverage > start; index--) {
      const table = await this.#tableAt(index);
      if (table === undefined) continue;
      const first = Math.max(start, index * l2Coverage);
      const last = Math.min(end, (index + 1) * l2Coverage);
      for (let at = Math.floor((last - 1) / clusterSize) * clusterSize; at >= first; at -= clusterSize) {
        const held = this.#bytesHeld(table, (at % l2Coverage) / clusterSize);
        if (held > 0) return Math.min(at + held, end);
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
    this.#l1 ??= await this.#readL1();
    const at = index * TABLE_ENTRY_BYTES;
    const high = this.#l1.getUint32(at) & OFFSET_HIGH;
    const offset = high * TWO_32 + ((this.#l1.getUint32(at + 4) & ~0x1ff) >>> 0);
    if (offset === 0 || offset % geometry.clusterSize !== 0 || offset >= this.#session.fileLength) return undefined;
    const table = new Uint8Array(geometry.clusterSize);
    await this.#read(offset, table);
    return viewOf(table);
  }

  /** At most 32 MiB, the limit of the header. */
  async #readL1(): Promise<DataView> {
    const { header } = this.#session;
    const bytes = new Uint8Array(header.l1Size * TABLE_ENTRY_BYTES);
    await this.#read(header.l1TableOffset, bytes);
    return viewOf(bytes);
  }

  async #read(at: number, into: Uint8Array): Promise<void> {
    const wait = this.#session.read(at, into, "zone reconstruction");
    if (isPromise(wait)) await wait;
  }

  /**
   * Bytes of the cluster up to the end of its data; with extended entries, of its last subcluster that is stored. Zero clusters
   * hold no data: the published programs leave them behind when they reset a zone.
   */
  #bytesHeld(table: DataView, index: number): number {
    const { l2EntrySize, clusterSize, subclusterSize } = this.#session.geometry;
    const at = index * l2EntrySize;
    const high = table.getUint32(at);
    const low = table.getUint32(at + 4);
    const isCompressed = (high & 0x4000_0000) !== 0;
    const hasHost = ((high & OFFSET_HIGH) | (low & ~0x1ff)) !== 0;
    if (isCompressed) return clusterSize;
    if (l2EntrySize === 16) return hasHost ? (32 - Math.clz32(storedMap(table, at))) * subclusterSize : 0;
    return hasHost && (low & 1) === 0 ? clusterSize : 0;
  }
}
