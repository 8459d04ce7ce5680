import { availableParallelism } from "node:os";
import type { ThreadMethod } from "../../codec/cluster-codec.js";
import { type TeamSlot, ThreadTeam } from "../../host/thread-team.js";
import { ZSTD_LEVEL } from "../../host/zstd-library.js";

/** Groups of clusters that a thread has at a time. */
const GROUPS = 6;
const MOST_THREADS = 16;

export interface ClustersToCompress {
  readonly method: ThreadMethod;
  readonly zstdLevel: number;
  /** The file from which packages are looked for. */
  readonly program: string;
  readonly clusterSize: number;
  /** Where the clusters are: their offsets in `source`. */
  readonly source: SharedArrayBuffer;
  readonly offsets: readonly number[];
  /** What they become goes to `into`, each to its own place of `clusterSize` bytes. */
  readonly into: SharedArrayBuffer;
}

type Slot = TeamSlot<ClustersToCompress, number[]>;

/** Compressed clusters, in the order in which they were given. */
export interface CompressedGroup {
  /** Undefined for what does not shrink. Good until `release`. */
  readonly clusters: readonly (Uint8Array | undefined)[];
  readonly release: () => void;
}

/**
 * Compresses groups of clusters in threads of their own, as many as there are processors: for whoever compresses much. In the thread pool
 * each cluster costs the main thread a call and an answer, and a new state of the compressor.
 */
class CompressingThreads {
  readonly #team = new ThreadTeam(clusterCompressor, Math.min(availableParallelism(), MOST_THREADS), GROUPS);

  /** `contents`: clusters of `clusterSize` bytes. Rejects when the threads fail; they will then always fail. */
  async compress(method: ThreadMethod, clusterSize: number, contents: readonly Uint8Array[]): Promise<CompressedGroup> {
    const slot = await this.#team.take();
    const release = (): void => this.#team.give(slot);
    try {
      return { clusters: await this.#work(slot, method, clusterSize, contents), release };
    } catch (error) {
      release();
      throw error;
    }
  }

  async #work(
    slot: Slot,
    method: ThreadMethod,
    clusterSize: number,
    contents: readonly Uint8Array[],
  ): Promise<(Uint8Array | undefined)[]> {
    const bytes = contents.length * clusterSize;
    const shared = sharedBy(contents);
    const into = slot.memory(shared === undefined ? 2 * bytes : bytes);
    if (shared === undefined) {
      const copies = new Uint8Array(into, bytes);
      contents.forEach((cluster, index) => copies.set(cluster, index * clusterSize));
    }
    const source = shared ?? into;
    const offsets = contents.map(({ byteOffset }, index) =>
      shared === undefined ? bytes + index * clusterSize : byteOffset,
    );
    const program = import.meta.filename;
    const lengths = await slot.ask({ method, zstdLevel: ZSTD_LEVEL, program, clusterSize, source, offsets, into });
    return lengths.map((length, index) =>
      length === 0 ? undefined : new Uint8Array(into, index * clusterSize, length),
    );
  }
}

/** The memory that all of them lie in, when threads can see it. */
function sharedBy(contents: readonly Uint8Array[]): SharedArrayBuffer | undefined {
  const buffer = contents[0]?.buffer;
  return buffer instanceof SharedArrayBuffer && contents.every((cluster) => cluster.buffer === buffer)
    ? buffer
    : undefined;
}

/** Those of the whole process. */
export const compressingThreads = new CompressingThreads();

/** Runs in the thread: uses nothing from around it. Gives the lengths of what the clusters become, 0 for what does not shrink. */
export function clusterCompressor(): (request: ClustersToCompress) => number[] {
  const { createRequire } = process.getBuiltinModule("node:module");
  const { constants, createDeflateRaw, deflateRawSync } = process.getBuiltinModule("node:zlib");
  type Pack = (contents: Uint8Array, into: Uint8Array) => number;
  let deflate: Pack | undefined;
  let zstd: Pack | undefined;

  // As the codec of the thread pool has it (codec/deflate.ts).
  const settings = { windowBits: 12, memLevel: 9 };
  const deflateAnew: Pack = (contents, into) => {
    try {
      const packed = deflateRawSync(contents, { ...settings, maxOutputLength: into.length });
      into.set(packed);
      return packed.length;
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ERR_BUFFER_TOO_LARGE") return 0;
      throw error;
    }
  };

  /**
   * With one state for all clusters, and no garbage, which takes 30 MiB for each thread. For this there is no public function: it is done only
   * where the parts of a stream are as they have been since Node.js 11, and give what the public function gives.
   */
  const bindDeflate = (contents: Uint8Array, into: Uint8Array): Pack => {
    interface Inside {
      readonly _handle?: {
        reset?: () => void;
        writeSync?: (
          ...values: [
            flush: number,
            from: Uint8Array,
            at: number,
            length: number,
            into: Uint8Array,
            to: number,
            room: number,
          ]
        ) => void;
      };
      readonly _writeState?: Uint32Array;
    }
    const stream = createDeflateRaw(settings);
    const { _handle: handle, _writeState: left } = stream as unknown as Inside;
    if (handle?.reset === undefined || handle.writeSync === undefined || !(left instanceof Uint32Array))
      return deflateAnew;
    const { reset, writeSync } = handle;
    const again: Pack = (from, to) => {
      reset.call(handle);
      writeSync.call(handle, constants.Z_FINISH, from, 0, from.length, to, 0, to.length);
      const [room = 0, rest = 0] = left;
      return room === 0 || rest > 0 ? 0 : to.length - room;
    };
    try {
      const length = again(contents, into);
      const packed = Buffer.from(into.subarray(0, length));
      return deflateAnew(contents, into) === length && packed.equals(into.subarray(0, length)) ? again : deflateAnew;
    } catch {
      return deflateAnew;
    }
  };

  /** As host/zstd-native.ts. */
  const bindZstd = (program: string, level: number): Pack => {
    const library = createRequire(program)("koffi").load("libzstd.so.1");
    const types = ["void *", "void *", "size_t", "void *", "size_t", "int"];
    const compress = library.func("ZSTD_compressCCtx", "int64_t", types);
    const context: unknown = library.func("ZSTD_createCCtx", "void *", [])();
    const tooSmall = -70;
    return (contents, into) => {
      const length: number = compress(context, into, into.length, contents, contents.length, level);
      if (length < 0 && length !== tooSmall) throw new Error(`zstd error ${-length}`);
      return Math.max(0, length);
    };
  };

  return ({ method, zstdLevel, program, clusterSize, source, offsets, into }) => {
    const pack: Pack = (contents, room) => {
      if (method === "zstd") return (zstd ??= bindZstd(program, zstdLevel))(contents, room);
      return (deflate ??= bindDeflate(contents, room))(contents, room);
    };
    return offsets.map((at, index) =>
      pack(new Uint8Array(source, at, clusterSize), new Uint8Array(into, index * clusterSize, clusterSize - 1)),
    );
  };
}
