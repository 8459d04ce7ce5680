import { ZcowError } from "../../../base/errors.js";
import { MAX_L2_TABLES } from "./check-limits.js";

const FREE = -1;

/**
 * How often each L2 table was referred to by L1 tables. An open-addressing hash in typed arrays: a hostile
 * image can have millions of tables, and a `Map` would take ten times the room.
 */
export class TableVisits {
  #keys = new Int32Array(1024).fill(FREE);
  #visits = new Uint32Array(1024);
  /** Visits of that table that were not read at once. */
  #owed = new Uint32Array(1024);
  #used = 0;

  /** Notes one more reference to the table in `cluster` and returns how many there are now. */
  visit(cluster: number): number {
    const slot = this.#claim(cluster);
    const visits = (this.#visits[slot] as number) + 1;
    this.#visits[slot] = visits;
    return visits;
  }

  /** Notes that the latest visit of `cluster` is to be made up for later. */
  owe(cluster: number): void {
    const slot = this.#claim(cluster);
    this.#owed[slot] = (this.#owed[slot] as number) + 1;
  }

  count(cluster: number): number {
    const slot = this.#find(cluster);
    return this.#keys[slot] === cluster ? (this.#visits[slot] as number) : 0;
  }

  isOwed(cluster: number): boolean {
    const slot = this.#find(cluster);
    return this.#keys[slot] === cluster && this.#owed[slot] !== 0;
  }

  /** All tables: cluster and how often L1 tables refer to it. */
  *all(): Generator<readonly [cluster: number, times: number]> {
    for (const [slot, cluster] of this.#keys.entries()) {
      if (cluster !== FREE) yield [cluster, this.#visits[slot] as number];
    }
  }

  /** Tables with visits owed: cluster and how many. */
  *owed(): Generator<readonly [cluster: number, times: number]> {
    for (const [slot, times] of this.#owed.entries()) {
      if (times > 0) yield [this.#keys[slot] as number, times];
    }
  }

  #claim(cluster: number): number {
    let slot = this.#find(cluster);
    if (this.#keys[slot] === cluster) return slot;
    if (this.#used * 2 >= this.#keys.length) {
      this.#grow();
      slot = this.#find(cluster);
    }
    this.#keys[slot] = cluster;
    this.#used++;
    return slot;
  }

  #find(cluster: number): number {
    const mask = this.#keys.length - 1;
    let slot = (Math.imul(cluster, 0x9e3779b1) >>> 7) & mask;
    while (this.#keys[slot] !== cluster && this.#keys[slot] !== FREE) slot = (slot + 1) & mask;
    return slot;
  }

  #grow(): void {
    if (this.#used >= MAX_L2_TABLES) {
      throw new ZcowError("CHECK_LIMIT", `The image refers to more than ${MAX_L2_TABLES} L2 tables`, {
        data: { structure: "L1 table", limit: MAX_L2_TABLES },
      });
    }
    const [keys, visits, owed] = [this.#keys, this.#visits, this.#owed];
    this.#keys = new Int32Array(keys.length * 2).fill(FREE);
    this.#visits = new Uint32Array(keys.length * 2);
    this.#owed = new Uint32Array(keys.length * 2);
    for (const [from, key] of keys.entries()) {
      if (key === FREE) continue;
      const to = this.#find(key);
      this.#keys[to] = key;
      this.#visits[to] = visits[from] as number;
      this.#owed[to] = owed[from] as number;
    }
  }
}
