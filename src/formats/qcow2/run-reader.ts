import { isPromise, type MaybePromise, whenAll } from "../../base/maybe-promise.js";
import type { ImageState } from "./image-state.js";
import type { TableSlice } from "./table-cache.js";

/**
 * Reads of any shape: several clusters or parts of them, holes, zeros, tables that are not in memory. Runs that are neighbours in the file are
 * one storage read; reads of different runs go out together. Synchronous as long as tables and data are at hand.
 */
export class RunReader {
  readonly #state: ImageState;
  readonly #clusterSize: number;
  readonly #inverseClusterSize: number;
  readonly #subclusterSize: number;
  readonly #inverseSubclusterSize: number;

  constructor(state: ImageState) {
    this.#state = state;
    this.#clusterSize = state.geometry.clusterSize;
    this.#inverseClusterSize = 1 / state.geometry.clusterSize;
    this.#subclusterSize = state.geometry.subclusterSize;
    this.#inverseSubclusterSize = 1 / state.geometry.subclusterSize;
  }

  read(offset: number, into: Uint8Array): MaybePromise<void> {
    return this.#readRuns(offset, into, 0, []);
  }

  /** Reads from byte `done` of the request on, without waiting as long as tables are in memory. */
  #readRuns(offset: number, into: Uint8Array, done: number, waits: Promise<void>[]): MaybePromise<void> {
    try {
      for (let at = done; at < into.length; ) {
        const cluster = Math.floor((offset + at) * this.#inverseClusterSize);
        const table = this.#state.map.tableAt(this.#state.map.l1Index(cluster));
        if (table === 0) {
          const holeEnd = this.#state.map.firstCluster(this.#state.map.l1Index(cluster) + 1) * this.#clusterSize;
          const count = Math.min(into.length - at, holeEnd - offset - at);
          const wait = this.#state.old.readUnmapped(offset + at, into.subarray(at, at + count));
          if (isPromise(wait)) waits.push(wait);
          at += count;
          continue;
        }
        const acquired = this.#state.map.acquire(table, cluster);
        if (isPromise(acquired)) return this.#readAfter(acquired, offset, into, at, waits);
        try {
          const subcluster = Math.floor((offset + at) * this.#inverseSubclusterSize);
          const inside = offset + at - subcluster * this.#subclusterSize;
          const subclusters = Math.ceil((inside + into.length - at) * this.#inverseSubclusterSize);
          const run = this.#state.map.runAt(acquired, subcluster, subclusters);
          const count = Math.min(into.length - at, run.count * this.#subclusterSize - inside);
          const read = this.#state.old.read(run, subcluster, inside, into.subarray(at, at + count));
          const wait = this.#state.requests.follow(read);
          if (isPromise(wait)) waits.push(wait);
          at += count;
        } finally {
          this.#state.map.cache.release(acquired);
        }
      }
    } catch (error) {
      return Promise.allSettled(waits).then(() => this.#state.fail(error));
    }
    if (waits.length === 0) return undefined;
    return waits.length === 1 ? waits[0] : whenAll(waits);
  }

  async #readAfter(
    loading: Promise<TableSlice>,
    offset: number,
    into: Uint8Array,
    done: number,
    waits: Promise<void>[],
  ): Promise<void> {
    let slice: TableSlice;
    try {
      slice = await loading;
    } catch (error) {
      await Promise.allSettled(waits);
      throw error;
    }
    let rest: MaybePromise<void>;
    try {
      rest = this.#readRuns(offset, into, done, waits);
    } finally {
      this.#state.map.cache.release(slice);
    }
    if (isPromise(rest)) await rest;
  }
}
