import { isInMemory } from "../host/memory-files.js";
import { loadedNativeCalls, nativeCalls } from "../host/native.js";
import { CANNOT_TELL, PageCacheReader } from "../host/page-cache-read.js";
import { readHere } from "./file-transfer.js";

/** Longest a read of `length` bytes takes when the bytes are in memory: a fixed part and 2 GB/s, in milliseconds. */
function patience(length: number): number {
  return 0.02 + length * 5e-7;
}

/** Share of the newest read in the average. */
const WEIGHT = 1 / 8;
/** One read counts as at most this many times too slow, so that a slow spell is forgotten in reasonable time. */
const WORST = 8;
/** Below this the storage is clearly fast, and only one of `SAMPLE_EVERY` reads is timed: asking the clock twice costs a tenth of a read. */
const CLEARLY_FAST = 0.5;
const SAMPLE_EVERY = 8;
/** While reads are slow, one of this many is tried on this thread to see whether they still are. */
const PROBE_EVERY = 64;
/** Reads after which the native helper pays for its loading. */
const HEAVY_USE = 256;

/**
 * Decides for each read whether this thread makes it or the thread pool.
 *
 * Best is the native helper: it reads what the page cache holds and says when it holds nothing. Files that are in memory only
 * (tmpfs, which does not say) are read here. Otherwise the time of the reads made here is averaged, and while that is above
 * what memory takes, reads go to the pool.
 */
export class ReadPath {
  readonly #fd: number;
  #reader: PageCacheReader | undefined;
  #untilHelper = HEAVY_USE;
  #inMemory = false;
  /** Average of time taken by time allowed; above 1 the storage is slow. */
  #slowness = 0;
  #untilProbe = PROBE_EVERY;
  #untilSample = 1;

  constructor(fd: number) {
    this.#fd = fd;
    const calls = loadedNativeCalls();
    if (calls !== undefined) this.#useHelper(new PageCacheReader(calls));
  }

  /** Bytes read now, from the start of `into`; the caller reads the rest in the pool. */
  attempt(at: number, into: Uint8Array): number {
    const reader = this.#reader;
    if (reader === undefined) return this.#attemptTimed(at, into);
    const count = reader.read(this.#fd, at, into);
    if (count >= 0) return count;
    if (count !== CANNOT_TELL) return 0;
    this.#reader = undefined;
    this.#inMemory = isInMemory(this.#fd);
    return this.#attemptTimed(at, into);
  }

  #useHelper(reader: PageCacheReader | undefined): void {
    this.#reader = reader;
    this.#untilHelper = Number.POSITIVE_INFINITY;
  }

  #attemptTimed(at: number, into: Uint8Array): number {
    if (this.#inMemory) return readHere(this.#fd, at, into);
    if (--this.#untilHelper === 0) {
      const calls = nativeCalls();
      this.#useHelper(calls === undefined ? undefined : new PageCacheReader(calls));
      this.#inMemory = calls === undefined && isInMemory(this.#fd);
    }
    if (this.#slowness > 1 && --this.#untilProbe > 0) return 0;
    this.#untilProbe = PROBE_EVERY;
    if (--this.#untilSample > 0) return readHere(this.#fd, at, into);
    const started = performance.now();
    const count = readHere(this.#fd, at, into);
    const ratio = Math.min((performance.now() - started) / patience(into.length), WORST);
    this.#slowness += (ratio - this.#slowness) * WEIGHT;
    this.#untilSample = this.#slowness < CLEARLY_FAST ? SAMPLE_EVERY : 1;
    return count;
  }
}
