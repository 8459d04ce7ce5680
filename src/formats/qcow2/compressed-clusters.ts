import { isZcowError, ZcowError } from "../../base/errors.js";
import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { MiB } from "../../base/units.js";
import type { ClusterCodec, ThreadMethod } from "../../codec/cluster-codec.js";
import type { Storage } from "../../storage/storage.js";
import { codecTurns } from "./compression.js";
import type { CompressedFile } from "./decompressing-threads.js";
import type { Qcow2Geometry } from "./geometry.js";
import type { CompressedReader, CompressedRun } from "./old-contents.js";

/** Most bytes of decompressed clusters that one image keeps: a guest reads a cluster in many small requests. */
export const DECOMPRESSED_CACHE_BYTES = 16 * MiB;
/** Never more than this part of what the image may use for tables, so that who asks for little memory gets it. */
const SHARE_OF_TABLES = 1 / 2;

/** Clusters read as a whole after which an image is taken to be copied, and threads are worth their start. */
const COPIED_CLUSTERS = 256;

export interface CompressedClustersParts {
  readonly storage: Storage;
  readonly geometry: Qcow2Geometry;
  readonly codec: () => Promise<ClusterCodec>;
  /** Bytes that the image may use for tables. */
  readonly cacheBytes: number;
}

/** False when it did not work, for whatever reason. */
async function decompressInThread(
  file: CompressedFile,
  host: number,
  length: number,
  into: Uint8Array,
): Promise<boolean> {
  const { decompressingThreads } = await import("./decompressing-threads.js");
  return decompressingThreads.decompress(file, host, length, into);
}

/** A cluster that is being decompressed, or kept. */
interface Kept {
  /** Length of the compressed data: entries of a damaged image may share an offset and nothing else. */
  readonly length: number;
  contents: Uint8Array | undefined;
  readonly loading: Promise<Uint8Array>;
}

/**
 * Compressed clusters, decompressed. The most recently used stay in memory, found by the file offset of their data, unless they were asked for as a whole;
 * requests for a cluster that is under way share one decompression.
 *
 * What is kept stays right because compressed data is never changed in place, and `forget` is called before its
 * space can be given to somebody else.
 */
export class CompressedClusters implements CompressedReader {
  readonly #parts: CompressedClustersParts;
  readonly #limit: number;
  /** In the order of use, oldest first. */
  readonly #kept = new Map<number, Kept>();
  #readWhole = 0;
  /** Known once a cluster was decompressed. */
  #threadMethod: ThreadMethod | undefined;

  constructor(parts: CompressedClustersParts) {
    this.#parts = parts;
    const bytes = Math.min(DECOMPRESSED_CACHE_BYTES, parts.cacheBytes * SHARE_OF_TABLES);
    this.#limit = Math.max(1, Math.floor(bytes / parts.geometry.clusterSize));
  }

  read(run: CompressedRun, cluster: number, inside: number, into: Uint8Array): MaybePromise<void> {
    let kept = this.#find(run);
    if (kept === undefined) {
      // All of the cluster is asked for, as copies do, which do not come back: kept, it would only fill the memory.
      if (into.length === this.#parts.geometry.clusterSize) {
        return this.#readCluster(run, cluster, into);
      }
      kept = this.#load(run, cluster);
    }
    const copy = (contents: Uint8Array): void => into.set(contents.subarray(inside, inside + into.length));
    if (kept.contents === undefined) return kept.loading.then(copy);
    copy(kept.contents);
    return undefined;
  }

  forget(host: number): void {
    this.#kept.delete(host);
  }

  #find({ host, length }: CompressedRun): Kept | undefined {
    const kept = this.#kept.get(host);
    if (kept?.length !== length) return undefined;
    this.#kept.delete(host);
    this.#kept.set(host, kept);
    return kept;
  }

  #readCluster(run: CompressedRun, cluster: number, into: Uint8Array): Promise<void> {
    const here = (): Promise<void> => codecTurns.run(() => this.#decompress(run, cluster, into));
    const { storage } = this.#parts;
    const { descriptor } = storage;
    const method = this.#threadMethod;
    const length = Math.min(run.length, storage.size() - run.host);
    this.#readWhole += 1;
    const isCopied = this.#readWhole > COPIED_CLUSTERS;
    if (!isCopied || method === undefined || descriptor === undefined || length <= 0) return here();
    return decompressInThread({ descriptor, method }, run.host, length, into).then((isDone) =>
      isDone ? undefined : here(),
    );
  }

  #load(run: CompressedRun, cluster: number): Kept {
    const { host, length } = run;
    const loading = codecTurns.run(async () => {
      const contents = new Uint8Array(this.#parts.geometry.clusterSize);
      await this.#decompress(run, cluster, contents);
      return contents;
    });
    const kept: Kept = { length, contents: undefined, loading };
    this.#kept.set(host, kept);
    const drop = (): void => {
      if (this.#kept.get(host) === kept) this.#kept.delete(host);
    };
    loading.then((contents) => {
      kept.contents = contents;
      this.#trim();
    }, drop);
    return kept;
  }

  /** What is still under way is bounded by the requests that wait for it. */
  #trim(): void {
    for (const [host, { contents }] of this.#kept) {
      if (this.#kept.size <= this.#limit) return;
      if (contents !== undefined) this.#kept.delete(host);
    }
  }

  async #decompress({ host, length }: CompressedRun, cluster: number, into: Uint8Array): Promise<void> {
    const { storage, codec } = this.#parts;
    const size = storage.size();
    if (host >= size) {
      throw this.#failure(host, cluster, `lies past the end of the file, which has ${size} bytes`, undefined);
    }
    const bytes = new Uint8Array(Math.min(length, size - host));
    storage.debug?.event("read_compressed");
    const wait = storage.read(host, bytes);
    if (isPromise(wait)) await wait;
    const method = await codec();
    this.#threadMethod = method.threadMethod;
    try {
      await method.decompress(bytes, into);
    } catch (error) {
      if (!isZcowError(error, "COMPRESSED_DATA")) throw error;
      throw this.#failure(host, cluster, `cannot be decompressed: ${error.message}`, error);
    }
  }

  #failure(host: number, cluster: number, what: string, cause: unknown): ZcowError {
    const guest = cluster * this.#parts.geometry.clusterSize;
    return new ZcowError(
      "COMPRESSED_DATA",
      `The compressed cluster at guest offset ${guest}, whose data is at file offset ${host}, ${what}`,
      { data: { structure: "compressed cluster", offset: host, value: guest, path: this.#parts.storage.name }, cause },
    );
  }
}
