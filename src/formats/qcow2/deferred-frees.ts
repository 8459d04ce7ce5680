import { type HostOffset, hostOffset } from "../../base/units.js";

/** Host clusters that are no longer mapped. */
export interface FreedRange {
  readonly offset: HostOffset;
  /** Bytes, a multiple of the cluster size. */
  readonly length: number;
}

/** A crash before the next flush keeps this much host space in use; beyond, the engine flushes by itself. */
const MAX_WAITING_RANGES = 4096;
const MAX_WAITING_BYTES = 2 ** 30;

/**
 * Clusters whose mapping is gone in memory but may still be there in the file.
 *
 * They keep their refcount, so nobody can get them. When a write-back has made the removal durable they move on to
 * `gone`; from there the engine gives them back. Were they given back at once, a crash could leave the old mapping in the
 * file, pointing at somebody else's data.
 */
export class DeferredFrees {
  #waiting: FreedRange[] = [];
  #waitingBytes = 0;
  #gone: FreedRange[] = [];
  /** Those before it in `gone` have been taken. */
  #taken = 0;

  add(offset: number, length: number): void {
    this.#waitingBytes += length;
    const last = this.#waiting.at(-1);
    if (last !== undefined && last.offset + last.length === offset) {
      this.#waiting[this.#waiting.length - 1] = { offset: last.offset, length: last.length + length };
    } else {
      this.#waiting.push({ offset: hostOffset(offset), length });
    }
  }

  /** Some mapping removals are not durable yet. */
  get isWaiting(): boolean {
    return this.#waiting.length > 0;
  }

  /** Time to flush, whoever asks for it or not. */
  get isOverdue(): boolean {
    return this.#waiting.length > MAX_WAITING_RANGES || this.#waitingBytes > MAX_WAITING_BYTES;
  }

  /** Takes all that a write-back starting now covers. */
  freeze(): FreedRange[] {
    const ranges = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    return ranges;
  }

  /** Ends the write-back of `ranges`. */
  settle(ranges: readonly FreedRange[], durable: boolean): void {
    if (durable) for (const range of joined(ranges)) this.#gone.push(range);
    else for (const range of ranges) this.add(range.offset, range.length);
  }

  /** The next range that nothing durable refers to. */
  next(): FreedRange | undefined {
    const range = this.#gone[this.#taken];
    if (range !== undefined) this.#taken += 1;
    // Taken one by one from the front of a long array, they would cost more than the clusters.
    if (this.#taken === this.#gone.length) {
      this.#gone = [];
      this.#taken = 0;
    }
    return range;
  }

  /** Takes back a range from `next` that could not be given back. */
  putBack(range: FreedRange): void {
    this.#gone.push(range);
  }

  get hasGone(): boolean {
    return this.#gone.length > this.#taken;
  }
}

/**
 * The same clusters in ascending order, neighbours put together: zones that were written in turns have theirs in turns, and each piece costs
 * a system call. What is in two ranges (clusters shared by compressed data) stays so, for each has a count to give back.
 */
function joined(ranges: readonly FreedRange[]): FreedRange[] {
  const result: FreedRange[] = [];
  for (const range of ranges.toSorted((a, b) => a.offset - b.offset)) {
    const last = result.at(-1);
    if (last === undefined || last.offset + last.length !== range.offset) result.push(range);
    else result[result.length - 1] = { offset: last.offset, length: last.length + range.length };
  }
  return result;
}
