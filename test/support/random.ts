/**
 * A small seeded generator (mulberry32): the same seed gives the same workload on every machine, so a failure
 * is repeated by its seed alone. Not `Math.random`, and not fast-check, which is for shrinkable inputs.
 */
export class Random {
  readonly seed: number;
  #state: number;

  constructor(seed: number) {
    this.seed = seed >>> 0;
    this.#state = this.seed;
  }

  /** 0 .. 2^32 - 1. */
  u32(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }

  /** 0 .. limit - 1, for limits up to 2^53. */
  below(limit: number): number {
    if (limit <= 0x1_0000_0000) return Math.floor((this.u32() / 0x1_0000_0000) * limit);
    return (this.u32() * 0x20_0000 + (this.u32() >>> 11)) % limit;
  }

  /** low .. high, both included. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  chance(probability: number): boolean {
    return this.u32() < probability * 0x1_0000_0000;
  }

  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new Error("nothing to pick from");
    return items[this.below(items.length)] as T;
  }

  /** Picks a key with a probability in proportion to its weight. */
  weighted<K extends string>(weights: Readonly<Record<K, number>>): K {
    const entries = Object.entries(weights) as [K, number][];
    let left = this.below(entries.reduce((sum, [, weight]) => sum + weight, 0));
    for (const [key, weight] of entries) {
      if (left < weight) return key;
      left -= weight;
    }
    throw new Error("weights must be positive");
  }

  shuffled<T>(items: readonly T[]): T[] {
    const result = [...items];
    for (let last = result.length - 1; last > 0; last--) {
      const other = this.below(last + 1);
      [result[last], result[other]] = [result[other] as T, result[last] as T];
    }
    return result;
  }
}

/** The seed to start from: ZCOW_SEED repeats a failure, otherwise the given default keeps runs equal. */
export function seedFromEnvironment(fallback: number): number {
  const text = process.env["ZCOW_SEED"];
  return text === undefined || text === "" ? fallback : Number(text) >>> 0;
}

/**
 * Bytes that tell which write they came from and where they belong: every byte depends on the write's number and on
 * its own position on the disk, and none is zero, so lost, stale and misplaced data all show.
 */
export function taggedBytes(writeNumber: number, diskOffset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const tag = Math.imul(writeNumber + 1, 0x9e3779b1);
  for (let i = 0; i < length; i++) {
    const at = diskOffset + i;
    bytes[i] = 1 + (((tag >>> ((at & 3) * 8)) + at * 7 + (at >>> 9) * 29 + (at >>> 17) * 3) % 255);
  }
  return bytes;
}

/** As `taggedBytes`, but every sector repeats its first bytes, so that it shrinks. */
export function compressibleBytes(writeNumber: number, diskOffset: number, length: number): Uint8Array {
  const bytes = taggedBytes(writeNumber, diskOffset, length);
  for (let at = 0; at < length; at++) if (at % 512 >= 32) bytes[at] = bytes[at - 32] as number;
  return bytes;
}
