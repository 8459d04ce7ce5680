import { ZcowError } from "../../../base/errors.js";

/** Clusters per chunk. Hot loops keep the chunk they are in and index it themselves. */
export const CHUNK_BITS = 12;
export const CHUNK_SIZE = 1 << CHUNK_BITS;
export const CHUNK_MASK = CHUNK_SIZE - 1;
const CHUNK_BYTES = CHUNK_SIZE * 2;

/** Bits of a chunk element: the count, and by which kinds of active entries the cluster is referred to. */
export const COUNT_MASK = 0x3fff;
/** An entry with the copied flag. */
export const SEEN_COPIED = 0x4000;
/** An entry without the copied flag. */
export const SEEN_PLAIN = 0x8000;
/** The count is in the overflow map. */
const SPILLED = COUNT_MASK;

/**
 * How often each cluster of the file is referred to, found by walking all metadata.
 *
 * Sparse in chunks, two bytes per cluster; chunks nobody refers to take no room. Clusters are
 * indices below 2^31.
 */
export class ReferenceCounts {
  /** Number of clusters that can be counted. */
  readonly clusters: number;
  /** Counts below this can grow by one in their chunk element. */
  readonly inPlace: number;
  readonly #chunks: (Uint16Array | undefined)[];
  readonly #largest: number;
  readonly #spilled = new Map<number, number>();
  readonly #byteLimit: number;
  #bytes = 0;

  /** `largest` is the largest count the image can store; counts stop there. `byteLimit` bounds the memory used. */
  constructor(clusters: number, largest: number, byteLimit: number) {
    this.clusters = clusters;
    this.inPlace = Math.min(largest, SPILLED - 1);
    this.#largest = largest;
    this.#byteLimit = byteLimit;
    this.#chunks = new Array<Uint16Array | undefined>(Math.ceil(clusters / CHUNK_SIZE)).fill(undefined);
  }

  get(cluster: number): number {
    const chunk = this.#chunks[cluster >>> CHUNK_BITS];
    if (chunk === undefined) return 0;
    const count = (chunk[cluster & CHUNK_MASK] as number) & COUNT_MASK;
    return count === SPILLED ? (this.#spilled.get(cluster) ?? count) : count;
  }

  /** The kinds of active entries that refer to the cluster: `SEEN_COPIED`, `SEEN_PLAIN`, both, or 0. */
  seen(cluster: number): number {
    return ((this.#chunks[cluster >>> CHUNK_BITS]?.[cluster & CHUNK_MASK] ?? 0) & ~COUNT_MASK) >>> 0;
  }

  /** Adds one reference. False, and nothing added, when the count is at its largest. `cluster` < `clusters`. */
  add(cluster: number, seen = 0): boolean {
    const chunk = this.chunk(cluster >>> CHUNK_BITS);
    const at = cluster & CHUNK_MASK;
    const element = (chunk[at] as number) | seen;
    if ((element & COUNT_MASK) < this.inPlace) {
      chunk[at] = element + 1;
      return true;
    }
    chunk[at] = element;
    const count = this.get(cluster);
    if (count >= this.#largest) return false;
    this.set(cluster, count + 1);
    return true;
  }

  /** Notes that an active entry with or without the copied flag refers to the cluster, without counting it. */
  see(cluster: number, seen: number): void {
    const chunk = this.chunk(cluster >>> CHUNK_BITS);
    chunk[cluster & CHUNK_MASK] = (chunk[cluster & CHUNK_MASK] as number) | seen;
  }

  /** Sets the count; what was seen stays. */
  set(cluster: number, count: number): void {
    const index = cluster >>> CHUNK_BITS;
    if (count === 0 && this.#chunks[index] === undefined) return;
    const chunk = this.chunk(index);
    const seen = (chunk[cluster & CHUNK_MASK] as number) & ~COUNT_MASK;
    if (count >= SPILLED) this.#spilled.set(cluster, count);
    else this.#spilled.delete(cluster);
    chunk[cluster & CHUNK_MASK] = seen | Math.min(count, SPILLED);
  }

  /** The chunk of clusters [index << CHUNK_BITS, …), made when it is not there. */
  chunk(index: number): Uint16Array {
    return this.#chunks[index] ?? this.#makeChunk(index);
  }

  /** As `chunk`, but undefined when none of its clusters was ever referred to. */
  existingChunk(index: number): Uint16Array | undefined {
    return this.#chunks[index];
  }

  /** True when no cluster of [from, to) was ever referred to; looks at whole chunks only. */
  isUntouched(from: number, to: number): boolean {
    for (let index = from >>> CHUNK_BITS; index <= (to - 1) >>> CHUNK_BITS; index++) {
      if (this.#chunks[index] !== undefined) return false;
    }
    return true;
  }

  /** First cluster at or after `from` that lies in a touched chunk, or `clusters`. */
  nextTouched(from: number): number {
    if (from >= this.clusters) return this.clusters;
    let index = from >>> CHUNK_BITS;
    if (this.#chunks[index] !== undefined) return from;
    while (index < this.#chunks.length && this.#chunks[index] === undefined) index++;
    return Math.min(index * CHUNK_SIZE, this.clusters);
  }

  #makeChunk(index: number): Uint16Array {
    this.#bytes += CHUNK_BYTES;
    if (this.#bytes > this.#byteLimit) {
      throw new ZcowError(
        "CHECK_LIMIT",
        `The clusters in use are scattered so widely that counting them would take more than ${this.#byteLimit} bytes of memory`,
        { data: { structure: "reference counts", limit: this.#byteLimit } },
      );
    }
    const chunk = new Uint16Array(CHUNK_SIZE);
    this.#chunks[index] = chunk;
    return chunk;
  }
}
