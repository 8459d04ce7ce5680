import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";

/**
 * Reads and writes of guest data that the storage has not finished.
 *
 * A request looks up the mapping once and then works on the host cluster. So a cluster that lost its
 * mapping is given to somebody else only when every request that may still work on it is over.
 */
export class DataRequests {
  readonly #active = new Set<Promise<void>>();

  get isEmpty(): boolean {
    return this.#active.size === 0;
  }

  /** Follows `work` when it is still going on; returns it unchanged. */
  follow(work: MaybePromise<void>): MaybePromise<void> {
    if (!isPromise(work)) return work;
    this.#active.add(work);
    const end = (): void => {
      this.#active.delete(work);
    };
    work.then(end, end);
    return work;
  }

  /** Resolves when everything that was going on at the call is over. Undefined when nothing was. */
  settled(): Promise<void> | undefined {
    if (this.#active.size === 0) return undefined;
    return Promise.allSettled(this.#active).then(() => undefined);
  }
}
