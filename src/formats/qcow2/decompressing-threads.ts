import { availableParallelism } from "node:os";
import { KiB } from "../../base/units.js";
import { SideThread } from "../../host/side-thread.js";

/** Decompressed bytes that a thread makes for one request, and requests that it has at a time. */
const BATCH_BYTES = 512 * KiB;
const BATCHES = 3;
/** Beside this thread, which reads and writes meanwhile. */
const MOST_THREADS = 8;
/** Threads without work are ended after this time. */
const IDLE_MILLISECONDS = 2000;

/** Compressed clusters in a file: offset and length of each, again and again. */
export interface ClustersToDecompress {
  readonly descriptor: number;
  readonly clusterSize: number;
  readonly places: readonly number[];
  /** Where the contents go, one after the other. */
  readonly memory: SharedArrayBuffer;
}

/** A cluster that is to be decompressed into the caller's memory. */
interface Job {
  readonly host: number;
  readonly length: number;
  readonly into: Uint8Array;
  readonly done: (isDone: boolean) => void;
}

/** Clusters of one image that are asked for in the same turn. */
interface Batch {
  readonly descriptor: number;
  readonly clusterSize: number;
  readonly jobs: Job[];
}

/** Memory that one batch at a time uses. */
interface Slot {
  readonly thread: SideThread<ClustersToDecompress, number[]>;
  memory: SharedArrayBuffer;
}

/**
 * Decompresses deflated clusters in threads of their own: for whoever reads many of them. A call for each cluster in the thread pool costs
 * the main thread nearly as much as decompressing it. The threads read the file by themselves. They only do what is plain: whatever
 * fails is left to the caller.
 */
class DecompressingThreads {
  readonly #threads: SideThread<ClustersToDecompress, number[]>[] = [];
  readonly #idle: Slot[] = [];
  /** What waits for a slot. */
  readonly #waiting: Batch[] = [];
  /** What is still being put together in this turn. */
  #open: Batch | undefined;
  #slots = 0;
  #timer: NodeJS.Timeout | undefined;

  /** Fills `into` with the cluster whose data is at `host`. Resolves to false when that did not work. */
  decompress(descriptor: number, host: number, length: number, into: Uint8Array): Promise<boolean> {
    return new Promise((done) => {
      this.#batchFor(descriptor, into.length).jobs.push({ host, length, into, done });
    });
  }

  #batchFor(descriptor: number, clusterSize: number): Batch {
    const open = this.#open;
    const most = Math.max(1, Math.floor(BATCH_BYTES / clusterSize));
    if (open?.descriptor === descriptor && open.clusterSize === clusterSize && open.jobs.length < most) return open;
    if (open === undefined) queueMicrotask(() => this.#close());
    const batch: Batch = { descriptor, clusterSize, jobs: [] };
    this.#open = batch;
    this.#waiting.push(batch);
    return batch;
  }

  #close(): void {
    this.#open = undefined;
    this.#start();
    for (let slot = this.#idle.pop(); slot !== undefined; slot = this.#idle.pop()) {
      const batch = this.#waiting.shift();
      if (batch === undefined) {
        this.#idle.push(slot);
        return;
      }
      void this.#work(slot, batch);
    }
  }

  #start(): void {
    if (this.#threads.length > 0) return;
    const count = Math.max(1, Math.min(availableParallelism() - 1, MOST_THREADS));
    for (let i = 0; i < count; i++) {
      const thread = new SideThread(clusterDecompressor);
      this.#threads.push(thread);
      for (let slot = 0; slot < BATCHES; slot++) this.#idle.push({ thread, memory: new SharedArrayBuffer(0) });
    }
    this.#slots = this.#idle.length;
  }

  async #work(slot: Slot, { descriptor, clusterSize, jobs }: Batch): Promise<void> {
    const bytes = jobs.length * clusterSize;
    if (slot.memory.byteLength < bytes) slot.memory = new SharedArrayBuffer(Math.max(bytes, BATCH_BYTES));
    const { memory } = slot;
    const places = jobs.flatMap(({ host, length }) => [host, length]);
    const failed = await slot.thread
      .ask({ descriptor, clusterSize, places, memory })
      .catch(() => jobs.map((_, index) => index));
    jobs.forEach(({ into }, index) => {
      if (!failed.includes(index)) into.set(new Uint8Array(memory, index * clusterSize, clusterSize));
    });
    this.#idle.push(slot);
    if (this.#open === undefined) this.#close();
    jobs.forEach(({ done }, index) => done(!failed.includes(index)));
    this.#endWhenIdle();
  }

  /** A program that uses them no more needs no threads; one that ends does not wait for this. */
  #endWhenIdle(): void {
    if (this.#timer !== undefined) {
      this.#timer.refresh();
      return;
    }
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.#idle.length < this.#slots) {
        this.#endWhenIdle();
        return;
      }
      this.#idle.length = 0;
      for (const thread of this.#threads.splice(0)) void thread.close();
    }, IDLE_MILLISECONDS);
    this.#timer.unref();
  }
}

/** Those of the whole process. */
export const decompressingThreads = new DecompressingThreads();

/** Runs in the thread: uses nothing from around it. Gives the numbers of the clusters that it could not do. */
export function clusterDecompressor(): (request: ClustersToDecompress) => number[] {
  const { readSync } = process.getBuiltinModule("node:fs");
  const { constants, inflateRawSync } = process.getBuiltinModule("node:zlib");
  let input = Buffer.alloc(0);
  return ({ descriptor, clusterSize, places, memory }) => {
    const failed: number[] = [];
    for (let index = 0; 2 * index < places.length; index++) {
      const [host = 0, length = 0] = places.slice(2 * index, 2 * index + 2);
      if (input.length < length) input = Buffer.alloc(length);
      try {
        let done = 0;
        for (let count = 1; count > 0 && done < length; done += count) {
          count = readSync(descriptor, input, done, length - done, host + done);
        }
        // As the codec of the thread pool has it (src/codec/deflate.ts).
        const contents = inflateRawSync(input.subarray(0, done), {
          windowBits: 12,
          maxOutputLength: clusterSize,
          chunkSize: Math.max(64, clusterSize + 1),
          finishFlush: constants.Z_SYNC_FLUSH,
        });
        if (contents.length === clusterSize) new Uint8Array(memory, index * clusterSize).set(contents);
        else failed.push(index);
      } catch {
        failed.push(index);
      }
    }
    return failed;
  };
}
