import { availableParallelism } from "node:os";
import { KiB } from "../../base/units.js";
import type { ThreadMethod } from "../../codec/cluster-codec.js";
import { ThreadTeam } from "../../host/thread-team.js";

/** Decompressed bytes that a thread makes for one request, and requests that it has at a time. */
const BATCH_BYTES = 512 * KiB;
const BATCHES = 3;
/** Beside this thread, which reads and writes meanwhile. */
const MOST_THREADS = 8;

/** A file that holds compressed clusters. */
export interface CompressedFile {
  readonly descriptor: number;
  readonly method: ThreadMethod;
}

/** Compressed clusters in a file: offset and length of each, again and again. */
export interface ClustersToDecompress extends CompressedFile {
  /** The file from which packages are looked for. */
  readonly program: string;
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
  readonly file: CompressedFile;
  readonly clusterSize: number;
  readonly jobs: Job[];
}

/**
 * Decompresses clusters in threads of their own: for whoever reads many of them. A call for each cluster in the thread pool costs
 * the main thread nearly as much as decompressing it. The threads read the file by themselves. They only do what is plain: whatever
 * fails is left to the caller.
 */
class DecompressingThreads {
  readonly #team = new ThreadTeam(
    clusterDecompressor,
    Math.max(1, Math.min(availableParallelism() - 1, MOST_THREADS)),
    BATCHES,
  );
  /** What this turn has asked for; the last one may grow. */
  #batches: Batch[] = [];

  /** Fills `into` with the cluster whose data is at `host`. Resolves to false when that did not work. */
  decompress(file: CompressedFile, host: number, length: number, into: Uint8Array): Promise<boolean> {
    return new Promise((done) => {
      this.#batchFor(file, into.length).jobs.push({ host, length, into, done });
    });
  }

  #batchFor(file: CompressedFile, clusterSize: number): Batch {
    const last = this.#batches.at(-1);
    const most = Math.max(1, Math.floor(BATCH_BYTES / clusterSize));
    const isSame = last?.file.descriptor === file.descriptor && last.file.method === file.method;
    if (isSame && last.clusterSize === clusterSize && last.jobs.length < most) return last;
    if (last === undefined) queueMicrotask(() => this.#endTurn());
    const batch: Batch = { file, clusterSize, jobs: [] };
    this.#batches.push(batch);
    return batch;
  }

  #endTurn(): void {
    const batches = this.#batches;
    this.#batches = [];
    for (const batch of batches) void this.#work(batch);
  }

  async #work({ file, clusterSize, jobs }: Batch): Promise<void> {
    const slot = await this.#team.take();
    const memory = slot.memory(Math.max(jobs.length * clusterSize, BATCH_BYTES));
    const places = jobs.flatMap(({ host, length }) => [host, length]);
    const failed = await slot
      .ask({ ...file, program: import.meta.filename, clusterSize, places, memory })
      .catch(() => jobs.map((_, index) => index));
    jobs.forEach(({ into }, index) => {
      if (!failed.includes(index)) into.set(new Uint8Array(memory, index * clusterSize, clusterSize));
    });
    this.#team.give(slot);
    jobs.forEach(({ done }, index) => done(!failed.includes(index)));
  }
}

/** Those of the whole process. */
export const decompressingThreads = new DecompressingThreads();

/** Runs in the thread: uses nothing from around it. Gives the numbers of the clusters that it could not do. */
export function clusterDecompressor(): (request: ClustersToDecompress) => number[] {
  const { readSync } = process.getBuiltinModule("node:fs");
  const { createRequire } = process.getBuiltinModule("node:module");
  const { constants, inflateRawSync } = process.getBuiltinModule("node:zlib");
  /** The length of the contents, or something else when they are not exactly what `into` takes. */
  type Unpack = (packed: Uint8Array, into: Uint8Array) => number;
  const unpackers = new Map<string, Unpack>();
  let input = Buffer.alloc(0);

  // As the codec of the thread pool has it (codec/deflate.ts).
  const inflate: Unpack = (packed, into) => {
    const contents = inflateRawSync(packed, {
      windowBits: 12,
      maxOutputLength: into.length,
      chunkSize: Math.max(64, into.length + 1),
      finishFlush: constants.Z_SYNC_FLUSH,
    });
    if (contents.length === into.length) into.set(contents);
    return contents.length;
  };

  /** libdeflate takes less than half of the time; what it does not like, such as data that does not end, is left to zlib. */
  const bindDeflate = (program: string): Unpack => {
    try {
      const library = createRequire(program)("koffi").load("libdeflate.so.0");
      const types = ["void *", "void *", "size_t", "void *", "size_t", "void *"];
      const decompress = library.func("libdeflate_deflate_decompress", "int", types);
      const context: unknown = library.func("libdeflate_alloc_decompressor", "void *", [])();
      // Without a place for the length it succeeds only when all of `into` was filled.
      return (packed, into) =>
        decompress(context, packed, packed.length, into, into.length, null) === 0 ? into.length : inflate(packed, into);
    } catch {
      // There is no such library, or no native helper.
      return inflate;
    }
  };

  /** As host/zstd-native.ts; only one whole frame is taken. */
  const bindZstd = (program: string): Unpack => {
    const library = createRequire(program)("koffi").load("libzstd.so.1");
    const frameSize = library.func("ZSTD_findFrameCompressedSize", "int64_t", ["void *", "size_t"]);
    const types = ["void *", "void *", "size_t", "void *", "size_t"];
    const decompress = library.func("ZSTD_decompressDCtx", "int64_t", types);
    const context: unknown = library.func("ZSTD_createDCtx", "void *", [])();
    return (packed, into) => {
      const size: number = frameSize(packed, packed.length);
      return size < 0 ? -1 : decompress(context, into, into.length, packed, size);
    };
  };

  const unpackerOf = (method: string, program: string): Unpack => {
    const known = unpackers.get(method);
    if (known !== undefined) return known;
    const made = method === "zstd" ? bindZstd(program) : bindDeflate(program);
    unpackers.set(method, made);
    return made;
  };

  return ({ descriptor, method, program, clusterSize, places, memory }) => {
    const failed: number[] = [];
    for (let index = 0; 2 * index < places.length; index++) {
      const [host = 0, length = 0] = places.slice(2 * index, 2 * index + 2);
      if (input.length < length) input = Buffer.alloc(length);
      try {
        let done = 0;
        for (let count = 1; count > 0 && done < length; done += count) {
          count = readSync(descriptor, input, done, length - done, host + done);
        }
        const into = new Uint8Array(memory, index * clusterSize, clusterSize);
        if (unpackerOf(method, program)(input.subarray(0, done), into) !== clusterSize) failed.push(index);
      } catch {
        failed.push(index);
      }
    }
    return failed;
  };
}
