/**
 * Order between writes and management operations.
 *
 * A management operation has its zones to itself: it starts when their writes in flight have ended, and
 * what arrives for these zones meanwhile (writes and other operations) is kept behind it and runs afterwards,
 * in the order of arrival, against the state it finds then.
 *
 * No deadlock: an entry waits only for entries that arrived earlier and for writes in flight, which wait for
 * nothing here. No zone waits for another, except as part of one range operation.
 */
import type { MaybePromise } from "../base/maybe-promise.js";
import type { ZoneIndex } from "../base/units.js";
import type { ZoneModel } from "./zone-model.js";

interface Entry {
  readonly first: ZoneIndex;
  readonly last: ZoneIndex;
  readonly exclusive: boolean;
  started: boolean;
  /** Writes: submits the write. Operations: lets the operation go on. */
  readonly start: () => void;
}

function conflict(a: Entry, b: Entry): boolean {
  return (a.exclusive || b.exclusive) && a.first <= b.last && b.first <= a.last;
}

export class ZoneGate {
  readonly #model: ZoneModel;
  /** Operations that run, and all that waits, in order of arrival. Empty almost always. */
  readonly #line: Entry[] = [];
  #advancing = false;

  constructor(model: ZoneModel) {
    this.#model = model;
    model.onIdle = (): void => this.#advance();
  }

  /** True when a write to the zone must go through `afterOperations`. */
  blocks(zone: ZoneIndex): boolean {
    return (
      this.#line.length > 0 && this.#line.some((entry) => entry.exclusive && entry.first <= zone && zone <= entry.last)
    );
  }

  /** Submits a write once the operations that arrived before it are over. */
  afterOperations<T>(zone: ZoneIndex, submit: () => MaybePromise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const start = (): void => {
        try {
          resolve(submit());
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)));
        }
      };
      this.#line.push({ first: zone, last: zone, exclusive: false, started: false, start });
    });
  }

  /** Runs `work` while no write is in flight in [first, last] and none is accepted. */
  async exclusively<T>(first: ZoneIndex, last: ZoneIndex, work: () => MaybePromise<T>): Promise<T> {
    let entry: Entry | undefined;
    await new Promise<void>((resolve) => {
      entry = { first, last, exclusive: true, started: false, start: resolve };
      this.#line.push(entry);
      this.#advance();
    });
    try {
      return await work();
    } finally {
      this.#line.splice(
        this.#line.findIndex((other) => other === entry),
        1,
      );
      this.#advance();
    }
  }

  /**
   * Starts whatever nothing earlier stands in the way of. A write that ends at once calls this again from
   * within: the scan under way sees to it, since nothing before its position can have become free by that.
   */
  #advance(): void {
    if (this.#advancing) return;
    this.#advancing = true;
    this.#scan();
    this.#advancing = false;
  }

  #scan(): void {
    for (let i = 0; i < this.#line.length; ) {
      const entry = this.#line[i];
      if (entry === undefined || entry.started || !this.#mayStart(entry, i)) {
        i += 1;
        continue;
      }
      entry.started = true;
      if (entry.exclusive) i += 1;
      else this.#line.splice(i, 1);
      entry.start();
    }
  }

  #mayStart(entry: Entry, position: number): boolean {
    for (let i = 0; i < position; i += 1) {
      const earlier = this.#line[i];
      if (earlier !== undefined && conflict(earlier, entry)) return false;
    }
    return !entry.exclusive || !this.#model.isBusy(entry.first, entry.last);
  }
}
