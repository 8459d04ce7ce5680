import type { FreedRange } from "./deferred-frees.js";
import type { ImageState } from "./image-state.js";
import { clusterAt } from "./positions.js";

/**
 * Gives back clusters whose mapping is durably gone.
 *
 * Order for each range: requests that may still work on the clusters end; no more compressed data joins them; holes are punched; only then the counts go
 * down and the allocator may hand the clusters out. So a late request or a late punch never hits a new owner.
 */
export class Reclaimer {
  readonly #state: ImageState;
  #running: Promise<void> | undefined;

  constructor(state: ImageState) {
    this.#state = state;
  }

  /** Undefined when there is nothing to do. Never rejects: a range that cannot be given back now stays for later. */
  run(): Promise<void> | undefined {
    if (this.#running === undefined && this.#state.frees.hasGone) {
      this.#running = this.#drain().finally(() => {
        this.#running = undefined;
      });
    }
    return this.#running;
  }

  async #drain(): Promise<void> {
    const { frees, onWarning, storage } = this.#state;
    for (let range = frees.next(); range !== undefined; range = frees.next()) {
      try {
        await this.#giveBack(range);
      } catch (cause) {
        frees.putBack(range);
        onWarning({
          code: "SPACE_NOT_RECLAIMED",
          message: `${storage.name}: ${range.length} unused bytes at file offset ${range.offset} could not be given back: ${cause instanceof Error ? cause.message : String(cause)}`,
          data: { path: storage.name, offset: range.offset, length: range.length },
        });
        return;
      }
    }
  }

  async #giveBack(range: FreedRange): Promise<void> {
    const { geometry, requests, refcounts, allocator, owners, storage } = this.#state;
    storage.debug?.event("cluster_free");
    // Only entries that break the rules lead here, at their worst with the one reference that the structure itself has.
    const violation = owners.violation("freed clusters", range.offset, range.length);
    if (violation !== undefined) return this.#state.markCorrupt(violation);
    await requests.settled();
    const first = clusterAt(range.offset, geometry);
    const count = range.length / geometry.clusterSize;
    await allocator.seal({ first, count });
    for (let done = 0; done < count; ) {
      const equal = await refcounts.runOfEqual(first + done, count - done);
      const run = { first: clusterAt(range.offset + done * geometry.clusterSize, geometry), count: equal.clusters };
      const zeroed =
        equal.count === 1 && (await this.#punch(run.first * geometry.clusterSize, run.count * geometry.clusterSize));
      // While they are counted: once they are not, somebody may write to them at any moment.
      if (zeroed) allocator.noteZeroed(run.first, run.count);
      await refcounts.decrease(run);
      if (equal.count === 1) allocator.noteFree(run.first);
      done += equal.clusters;
    }
  }

  /** True when the range reads as zeros now. */
  async #punch(offset: number, length: number): Promise<boolean> {
    const { storage } = this.#state;
    const { discard, efficientZeroes } = storage.capabilities;
    if (!discard) return false;
    try {
      // Beyond the end there are zeros, and there must be no end beyond.
      const inside = Math.min(length, storage.size() - offset);
      if (inside <= 0) return true;
      if (efficientZeroes) await storage.writeZeroes(offset, inside, { unmap: true });
      else await storage.discard(offset, inside);
      return efficientZeroes;
    } catch {
      // Host space stays in use; the clusters are free all the same.
      return false;
    }
  }
}
