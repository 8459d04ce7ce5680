import { ZcowError } from "../../../base/errors.js";

const CHUNK_BITS = 12;
const CHUNK_SIZE = 1 << CHUNK_BITS;
const CHUNK_MASK = CHUNK_SIZE - 1;
const CHUNK_BYTES = CHUNK_SIZE * 2;
/** In images with counts wider than 16 bits: the count is in the overflow map. */
const SPILLED = 0xffff;

/**
 * How often each cluster of the file is referred to, found by walking all metadata.
 *
 * Sparse in chunks, two bytes per cluster; chunks nobody refers to take no room. Clusters are
 * indices below 2^31.
 */
export class ReferenceCounts {
  /** Number of clusters that can be counted. */
  readonly clusters: number;
  readonly #chunks: (Uint16Array | undefined)[];
  readonly #largest: number;
  /** Counts up to here fit the chunk itself and can grow by one in place. */
  readonly #inPlace: number;
  readonly #spilled = new Map<number, number>();
  #bytes = 0;
  readonly #byteLimit: number;

  /** `largest` is the largest count the image can store; counts stop there. `byteLimit` bounds the memory used. */
  constructor(clusters: number, largest: number, byteLimit: number) {
    this.clusters = clusters;
    this.#largest = largest;
    this.#inPlace = Math.min(largest, largest > SPILLED ? SPILLED - 1 : SPILLED);
    this.#byteLimit = byteLimit;
    this.#chunks = new Array<Uint16Array | undefined>(Math.ceil(clusters / CHUNK_SIZE)).fill(undefined);
  }

  get(cluster: number): number {
    const chunk = this.#chunks[cluster >>> CHUNK_BITS];
    if (chunk === undefined) return 0;
    const count = chunk[cluster & CHUNK_MASK] as number;
    return count > this.#inPlace ? (this.#spilled.get(cluster) ?? count) : count;
  }

  /** Adds one reference. False, and nothing added, when the count is at its largest. `cluster` < `clusters`. */
  add(cluster: number): boolean {
    const chunk = this.#chunks[cluster >>> CHUNK_BITS] ?? this.#makeChunk(cluster >>> CHUNK_BITS);
    const at = cluster & CHUNK_MASK;
    const count = chunk[at] as number;
    if (count >= this.#inPlace) return this.#addSlowly(cluster);
    chunk[at] = count + 1;
    return true;
  }

  set(cluster: number, count: number): void {
    const index = cluster >>> CHUNK_BITS;
    if (count === 0 && this.#chunks[index] === undefined) return;
    const chunk = this.#chunks[index] ?? this.#makeChunk(index);
    if (count > this.#inPlace) {
      this.#spilled.set(cluster, count);
      chunk[cluster & CHUNK_MASK] = SPILLED;
    } else {
      this.#spilled.delete(cluster);
      chunk[cluster & CHUNK_MASK] = count;
    }
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

  #addSlowly(cluster: number): boolean {
    const count = this.get(cluster);
    if (count >= this.#largest) return false;
    this.set(cluster, count + 1);
    return true;
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
