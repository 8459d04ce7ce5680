import { isPromise } from "../../base/maybe-promise.js";
import type { DiskPart, FilledPlace, StorePlaces } from "../../block/block-device.js";
import { isUnmapped } from "./allocating-now.js";
import { acquireForEdit, linkClusters, refuseMetadata } from "./allocating-write.js";
import type { ImageState } from "./image-state.js";
import type { Reservation } from "./in-flight.js";

/** Clusters in a row, on the disk, of one slice, and in the file. They belong to the filling until they are linked or given back. */
interface FilledRun {
  /** First guest cluster. */
  readonly first: number;
  readonly count: number;
  /** Where the first one goes. */
  readonly host: number;
  /** The file reads as zeros there. */
  readonly fresh: boolean;
}

/**
 * Whole clusters that nothing is mapped at, written by somebody else: the steps of an allocating write (allocating-write.ts) in the same
 * order, with `store` in the place of the write. Clusters that turn out to be zeros are given back at once, and never linked. The image has no
 * backing image, and guest data lies in the image file as it is.
 */
export async function fill(
  state: ImageState,
  parts: readonly DiskPart[],
  store: StorePlaces,
  turn?: Promise<void>,
): Promise<boolean> {
  const filling = new Filling(state);
  try {
    for (const part of parts) if (!(await filling.add(part))) return false;
    const stored = await filling.store(store, turn);
    if (stored === undefined) return false;
    await filling.link(stored);
    return true;
  } finally {
    await filling.end();
  }
}

class Filling {
  readonly #state: ImageState;
  readonly #reservations: Reservation[] = [];
  readonly #runs: FilledRun[] = [];
  /** Those of `runs` that have not been settled yet begin here. */
  #settled = 0;

  constructor(state: ImageState) {
    this.#state = state;
  }

  /** Reserves the clusters of `part` and allocates host clusters; false when something is there, or about to be. */
  async add({ offset, length }: DiskPart): Promise<boolean> {
    const { map, geometry } = this.#state;
    const end = (offset + length) / geometry.clusterSize;
    for (let cluster = offset / geometry.clusterSize; cluster < end; ) {
      const count = Math.min(end - cluster, map.clustersToSliceEnd(cluster));
      if (!(await this.#reserve(cluster, count))) return false;
      await this.#allocate(cluster, count);
      cluster += count;
    }
    return true;
  }

  async #reserve(cluster: number, count: number): Promise<boolean> {
    const { map, tables, reservations } = this.#state;
    const table = await tables.writable(map.l1Index(cluster));
    const acquired = map.acquire(table, cluster);
    const slice = isPromise(acquired) ? await acquired : acquired;
    const isFree = reservations.find(cluster, count) === undefined && isUnmapped(this.#state, slice, cluster, count);
    map.cache.release(slice);
    if (isFree) this.#reservations.push(reservations.add(cluster, count));
    return isFree;
  }

  async #allocate(cluster: number, count: number): Promise<void> {
    const { allocator, geometry } = this.#state;
    for (let done = 0; done < count; ) {
      const { offset, count: got, fresh } = await allocator.allocate(count - done, false);
      this.#runs.push({ first: cluster + done, count: got, host: offset, fresh });
      refuseMetadata(this.#state, offset, got * geometry.clusterSize);
      done += got;
    }
  }

  async store(store: StorePlaces, turn: Promise<void> | undefined): Promise<Uint8Array | undefined> {
    const { geometry, allocator, requests, writeBack } = this.#state;
    const { clusterSize } = geometry;
    const places = this.#runs.map(({ first, count, host, fresh }): FilledPlace => {
      return { offset: first * clusterSize, length: count * clusterSize, host, isZero: fresh };
    });
    // The storage has to know how long the file is, which it is not told by whoever writes.
    await allocator.makeRoom(Math.max(0, ...places.map(({ host, length }) => host + length)));
    const storing = store(places);
    await requests.follow(storing.then(noted, noted));
    writeBack.unflushedData = true;
    await turn;
    return storing;
  }

  /** Points the L2 entries at what is stored, and gives the rest back. */
  async link(stored: Uint8Array): Promise<void> {
    let cluster = 0;
    for (const run of this.#runs) {
      await this.#settle(run, stored.subarray(cluster, cluster + run.count));
      cluster += run.count;
    }
  }

  async #settle(run: FilledRun, stored: Uint8Array): Promise<void> {
    const { map, allocator, geometry } = this.#state;
    const unused: FilledRun[] = [];
    const slice = await acquireForEdit(this.#state, run.first);
    for (let from = 0, end = 0; from < run.count; from = end) {
      while (end < run.count && stored[end] === stored[from]) end += 1;
      const host = run.host + from * geometry.clusterSize;
      const part = { first: run.first + from, count: end - from, host, fresh: run.fresh };
      if (stored[from] === 1) linkClusters(this.#state, slice, { ...part, allocated: true, rest: "fresh" });
      else unused.push(part);
    }
    map.cache.release(slice);
    this.#settled += 1;
    for (const { host, count, fresh } of unused) {
      if (fresh) allocator.noteZeroed(host / geometry.clusterSize, count);
      await allocator.release(host, count);
    }
  }

  /** What is not settled goes back; when even that fails the clusters leak, which check repairs. */
  async end(): Promise<void> {
    const { allocator, reservations } = this.#state;
    for (const { host, count } of this.#runs.slice(this.#settled)) {
      await allocator.release(host, count).catch(() => undefined);
    }
    for (const reservation of this.#reservations) reservations.end(reservation);
  }
}

function noted(): void {
  // Whoever waits for the result itself hears of failures.
}
