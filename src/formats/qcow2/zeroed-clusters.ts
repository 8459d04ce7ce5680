/** Beyond this many runs the oldest places are forgotten: those clusters are zeroed once more when they are used in part. */
const MAX_RUNS = 4096;

/**
 * Free host clusters that are known to read as zeros, because a hole was punched there: who writes to a part of one need not
 * zero the rest. Runs in ascending order, no two of them touching.
 */
export class ZeroedClusters {
  readonly #firsts: number[] = [];
  readonly #ends: number[] = [];

  /** [first, first + count) reads as zeros, and nobody uses it. */
  add(first: number, count: number): void {
    const end = first + count;
    const from = lowerBound(this.#ends, first);
    let to = from;
    let [low, high] = [first, end];
    while (to < this.#firsts.length && (this.#firsts[to] as number) <= end) {
      low = Math.min(low, this.#firsts[to] as number);
      high = Math.max(high, this.#ends[to] as number);
      to += 1;
    }
    this.#firsts.splice(from, to - from, low);
    this.#ends.splice(from, to - from, high);
    if (this.#firsts.length <= MAX_RUNS) return;
    // First fit takes low clusters first, so the highest are worth least.
    this.#firsts.pop();
    this.#ends.pop();
  }

  /** All of [first, first + count) reads as zeros. */
  has(first: number, count: number): boolean {
    if (this.#firsts.length === 0) return false;
    const at = lowerBound(this.#ends, first + count);
    return at < this.#firsts.length && (this.#firsts[at] as number) <= first;
  }

  /** [first, first + count) is used from now on. */
  remove(first: number, count: number): void {
    if (this.#firsts.length === 0) return;
    const end = first + count;
    const from = lowerBound(this.#ends, first + 1);
    let to = from;
    while (to < this.#firsts.length && (this.#firsts[to] as number) < end) to += 1;
    if (to === from) return;
    const low = this.#firsts[from] as number;
    const high = this.#ends[to - 1] as number;
    const left = low < first ? 1 : 0;
    const right = high > end ? 1 : 0;
    this.#firsts.splice(from, to - from, ...(left === 1 ? [low] : []), ...(right === 1 ? [end] : []));
    this.#ends.splice(from, to - from, ...(left === 1 ? [first] : []), ...(right === 1 ? [high] : []));
  }
}

/** Index of the first value that is at least `wanted`, in ascending values. */
function lowerBound(values: readonly number[], wanted: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((values[middle] as number) < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}
