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
  #line: Entry[] = [];
  /** The operations among them. */
  readonly #operations = new Set<Entry>();
  #advancing = false;

  constructor(model: ZoneModel) {
    this.#model = model;
    model.onIdle = (): void => this.#advance();
  }

  /** True when a write to the zone must go through `afterOperations`. */
  blocks(zone: ZoneIndex): boolean {
    if (this.#operations.size === 0) return false;
    for (const { first, last } of this.#operations) if (first <= zone && zone <= last) return true;
    return false;
  }

  /** Submits a write once the operations that arrived before it are over. Only for a zone that is blocked. */
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
    const entry = await this.#enter(first, last);
    try {
      return await work();
    } finally {
      this.#operations.delete(entry);
      this.#line = this.#line.filter((other) => other !== entry);
      this.#advance();
    }
  }

  #enter(first: ZoneIndex, last: ZoneIndex): Promise<Entry> {
    return new Promise((resolve) => {
      const entry: Entry = { first, last, exclusive: true, started: false, start: () => resolve(entry) };
      this.#operations.add(entry);
      this.#line.push(entry);
      this.#advance();
    });
  }

  /**
   * Starts whatever nothing earlier stands in the way of. A write that ends at once calls this again from
   * within: the scan under way sees to it, since nothing before its position can have become free by that.
   */
  #advance(): void {
    if (this.#advancing || this.#line.length === 0) return;
    this.#advancing = true;
    const waiting: Entry[] = [];
    const operations: Entry[] = [];
    for (const entry of this.#line) {
      // Writes do not stand in each other's way: for them only the operations matter, of which there are few.
      const starts = !entry.started && this.#mayStart(entry, entry.exclusive ? waiting : operations);
      if (!starts || entry.exclusive) waiting.push(entry);
      if (entry.exclusive) operations.push(entry);
      if (starts) {
        entry.started = true;
        entry.start();
      }
    }
    this.#line = waiting;
    this.#advancing = false;
  }

  /** `earlier`: what arrived before and is not over. */
  #mayStart(entry: Entry, earlier: readonly Entry[]): boolean {
    if (earlier.some((other) => conflict(other, entry))) return false;
    return !entry.exclusive || !this.#model.isBusy(entry.first, entry.last);
  }
}
