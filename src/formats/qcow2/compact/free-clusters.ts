import type { CheckSession } from "../check/check-session.js";
import { NO_BLOCK, type RefcountTable } from "../check/refcount-structures.js";

/** Free clusters below a bound, lowest first. Only those that a refcount block counts already: taking one then needs no new block. */
export class FreeClusters {
  readonly #session: CheckSession;
  readonly #table: RefcountTable;
  readonly #end: number;
  readonly #taken = new Set<number>();
  #next = 1;

  /** `end`: one past the last cluster that may be taken. */
  constructor(session: CheckSession, table: RefcountTable, end: number) {
    this.#session = session;
    this.#table = table;
    this.#end = end;
  }

  /** The lowest free cluster, which is taken by it. */
  take(): number | undefined {
    const cluster = this.#peek();
    if (cluster !== undefined) this.#next = cluster + 1;
    return cluster;
  }

  /** Takes `cluster` if it is the lowest free one. */
  takeIfNext(cluster: number): boolean {
    if (this.#peek() !== cluster) return false;
    this.#next = cluster + 1;
    return true;
  }

  /** The first of `count` neighbouring free clusters below `end`, which are taken by it. */
  takeRun(count: number, end: number): number | undefined {
    let first = this.#next;
    for (let cluster = first; cluster < Math.min(end, this.#end); cluster++) {
      if (!this.#isFree(cluster)) first = cluster + 1;
      else if (cluster + 1 - first === count) {
        for (let taken = first; taken <= cluster; taken++) this.#taken.add(taken);
        return first;
      }
    }
    return undefined;
  }

  #peek(): number | undefined {
    while (this.#next < this.#end && !this.#isFree(this.#next)) this.#next++;
    return this.#next < this.#end ? this.#next : undefined;
  }

  #isFree(cluster: number): boolean {
    if (this.#session.counts.get(cluster) !== 0 || this.#taken.has(cluster)) return false;
    const index = Math.floor(cluster / this.#session.geometry.refcountsPerBlock);
    return this.#table.blockOffset(index) !== NO_BLOCK;
  }
}
