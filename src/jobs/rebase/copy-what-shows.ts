import { alignDown } from "../../base/integers.js";
import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { MiB } from "../../base/units.js";
import type { BlockDevice } from "../../block/block-device.js";
import type { ClusterEngine } from "../../formats/qcow2/engine.js";
import { type PairedRun, pairedRuns, UnmappedDisk } from "../compare/paired-runs.js";
import { isZero } from "../convert/zero-scan.js";

/** Bytes that are compared at once, at least a cluster. */
const PIECE_BYTES = MiB;

/** How what shows through is copied. */
export interface CopyWhatShowsOptions {
  /** Store whole clusters compressed. Default false. */
  readonly compressed?: boolean;
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Copies into the overlay `engine` what shows through it now and would read differently with `backing` behind it (undefined:
 * nothing, zeros), by the cluster. Nothing is flushed. Fails with `NOT_SUPPORTED` where nothing can be compressed.
 */
export async function copyWhatShows(
  engine: ClusterEngine,
  backing: BlockDevice | undefined,
  options: CopyWhatShowsOptions,
): Promise<void> {
  const copier = new Copier(engine, backing, options);
  const { size, clusterSize } = engine.geometry;
  if (options.compressed === true) engine.assertCompressible(0, Math.min(size, clusterSize));
  const overlay = { size, extents: (offset: number, length: number) => engine.extents(offset, length) };
  try {
    for await (const run of pairedRuns(overlay, backing ?? NOTHING)) {
      if (run.offset >= size) return;
      await copier.copy(run);
      options.onProgress?.(run.offset + run.length, size);
    }
  } catch (error) {
    throw error instanceof UnmappedDisk ? error.cause : error;
  }
}

const NOTHING = {
  size: 0,
  extents: (): never => {
    throw new Error("a disk without bytes is not asked for them");
  },
};

class Copier {
  readonly #engine: ClusterEngine;
  readonly #backing: BlockDevice | undefined;
  readonly #compressed: boolean;
  readonly #clusterSize: number;
  readonly #shown: Uint8Array;
  readonly #behind: Uint8Array;

  constructor(engine: ClusterEngine, backing: BlockDevice | undefined, options: CopyWhatShowsOptions) {
    this.#engine = engine;
    this.#backing = backing;
    this.#compressed = options.compressed ?? false;
    this.#clusterSize = engine.geometry.clusterSize;
    const bytes = Math.max(PIECE_BYTES, this.#clusterSize);
    this.#shown = new Uint8Array(bytes);
    this.#behind = new Uint8Array(bytes);
  }

  async copy({ offset, length, first, second }: PairedRun): Promise<void> {
    if (first === undefined || (first.depth === 0 && first.kind !== "unallocated")) return;
    const isZeroBehind = second === undefined || second.zero;
    if (first.zero && isZeroBehind) return;
    const piece = this.#shown.length;
    for (let at = offset; at < offset + length; ) {
      const count = Math.min(piece - (at % piece), offset + length - at);
      const shown = this.#shown.subarray(0, count);
      const behind = this.#behind.subarray(0, count);
      if (first.zero) shown.fill(0);
      else await this.#read(this.#engine, at, shown);
      if (isZeroBehind) behind.fill(0);
      else if (this.#backing !== undefined) await this.#read(this.#backing, at, behind);
      await this.#keep(at, shown, behind);
      at += count;
    }
  }

  async #read(from: Pick<BlockDevice, "read">, at: number, into: Uint8Array): Promise<void> {
    const wait = from.read(at, into);
    if (isPromise(wait)) await wait;
  }

  /** Writes what of `shown` is not the same behind, by the cluster. */
  async #keep(at: number, shown: Uint8Array, behind: Uint8Array): Promise<void> {
    if (Buffer.compare(shown, behind) === 0) return;
    for (let done = 0; done < shown.length; ) {
      const next = alignDown(at + done, this.#clusterSize) + this.#clusterSize;
      const end = Math.min(shown.length, next - at);
      const part = shown.subarray(done, end);
      if (Buffer.compare(part, behind.subarray(done, end)) !== 0) await this.#write(at + done, part);
      done = end;
    }
  }

  /**
   * Zeros are marked in the tables where that is a whole cluster; elsewhere, and in version 2, they are stored: what reads as zeros
   * now because nothing is behind it may not do so for long.
   */
  async #write(at: number, bytes: Uint8Array): Promise<void> {
    const engine = this.#engine;
    const { size, version } = engine.geometry;
    const isWhole = at % this.#clusterSize === 0 && (bytes.length === this.#clusterSize || at + bytes.length === size);
    let wait: MaybePromise<void>;
    if (isWhole && version === 3 && isZero(bytes)) wait = engine.writeZeroes(at, bytes.length, true);
    else if (isWhole && this.#compressed) wait = engine.writeCompressed(at, bytes, true);
    else wait = engine.write(at, bytes);
    if (isPromise(wait)) await wait;
  }
}
