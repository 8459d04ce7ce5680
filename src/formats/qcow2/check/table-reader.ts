import { viewOf } from "../../../base/bytes.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { TABLE_BATCH_BYTES } from "./check-limits.js";
import type { CheckSession } from "./check-session.js";

const NO_BYTES = new Uint8Array(0);

/**
 * Reads many one-cluster tables in few large reads: neighbours in the file are fetched together, and what is not in
 * the page cache is fetched side by side. Tables are handed out in the order they were asked for.
 */
export class TableReader {
  readonly #session: CheckSession;
  readonly #stage: string;
  /** Made for the first table. */
  #buffer = NO_BYTES;
  #view = viewOf(NO_BYTES);
  readonly #capacity: number;
  readonly #offsets: Float64Array;
  readonly #tags: Float64Array;
  readonly #handle: (table: DataView, at: number, offset: number, tag: number) => void;
  #count = 0;

  /** `handle` gets a view, the byte position of the table in it, its file offset and the tag it was asked for with. */
  constructor(
    session: CheckSession,
    stage: string,
    handle: (table: DataView, at: number, offset: number, tag: number) => void,
  ) {
    const { clusterSize } = session.geometry;
    this.#session = session;
    this.#stage = stage;
    this.#handle = handle;
    // A small file has few tables.
    this.#capacity = Math.max(1, Math.min(1024, TABLE_BATCH_BYTES / clusterSize, session.fileClusters));
    this.#offsets = new Float64Array(this.#capacity);
    this.#tags = new Float64Array(this.#capacity);
  }

  /** Asks for the table at `offset`; every so often this hands out what was asked for, and then is to be awaited. */
  ask(offset: number, tag: number): void | Promise<void> {
    this.#session.spendTableBytes();
    if (this.#buffer.length === 0) {
      this.#buffer = new Uint8Array(this.#capacity * this.#session.geometry.clusterSize);
      this.#view = viewOf(this.#buffer);
    }
    this.#offsets[this.#count] = offset;
    this.#tags[this.#count] = tag;
    this.#count++;
    return this.#count === this.#capacity ? this.flush() : undefined;
  }

  /** Hands out what is left. */
  flush(): void | Promise<void> {
    const waits = this.#fetch();
    if (waits.length === 0) {
      this.#handOut();
      return undefined;
    }
    return Promise.all(waits).then(() => this.#handOut());
  }

  #fetch(): Promise<void>[] {
    const { clusterSize } = this.#session.geometry;
    const waits: Promise<void>[] = [];
    let first = 0;
    for (let next = 1; next <= this.#count; next++) {
      const adjacent = next < this.#count && this.#offsets[next] === (this.#offsets[next - 1] as number) + clusterSize;
      if (adjacent) continue;
      const into = this.#buffer.subarray(first * clusterSize, next * clusterSize);
      const wait = this.#session.read(this.#offsets[first] as number, into, this.#stage);
      if (isPromise(wait)) waits.push(wait);
      first = next;
    }
    return waits;
  }

  #handOut(): void {
    const { clusterSize } = this.#session.geometry;
    const count = this.#count;
    this.#count = 0;
    for (let i = 0; i < count; i++) {
      this.#handle(this.#view, i * clusterSize, this.#offsets[i] as number, this.#tags[i] as number);
    }
  }
}
