import { isPromise, type MaybePromise, whenAll } from "../../base/maybe-promise.js";
import { KiB, MiB } from "../../base/units.js";
import type { BlockDevice, BlockExtent, DiskPart } from "../../block/block-device.js";
import { BufferPool } from "./buffer-pool.js";
import { CopyPace } from "./copy-pace.js";
import type { CopyingThreads } from "./copying-threads.js";
import type { JoinedDisk, UnreadableSink } from "./joined-disk.js";
import { dataSpans } from "./zero-scan.js";

/** Bytes that are read at once. */
const PIECE_BYTES = MiB;
/** Pieces in flight. */
const DEFAULT_PIECES = 8;
/** Bytes of data after which threads are started: fewer are not worth it. */
const ALONE_BYTES = 16 * MiB;
/** Bytes of data after which threads copy: it takes them about as long to start. Always the same, so that the same copy gives the same file. */
const SHARED_FROM_BYTES = 48 * MiB;
/** Bytes that are copied here before threads are thought of again. */
const TURN_BYTES = 8 * MiB;
export const DEFAULT_SPARSE_BYTES = 4 * KiB;

export interface CopyOptions {
  /** The target reads as zeros everywhere: nothing is written where the source is zero. */
  readonly targetIsZero: boolean;
  /**
   * The target has a backing image that holds what the source has in its own one: nothing is written where that shows through.
   * Zeros of the source itself are written, whatever `targetIsZero` says. Default false.
   */
  readonly targetHasBacking?: boolean;
  /** Bytes per second; 0 or left out: no limit. */
  readonly rate?: number | undefined;
  /** Runs of zeros of this many bytes (a multiple of 512) are not written as data; 0: everything is. Default 4 KiB. */
  readonly sparseBytes?: number;
  /** Pieces in flight, 1 to 64. Default 8. */
  readonly piecesInFlight?: number;
  /** Unreadable sectors become zeros; told of here. Undefined: the first one ends the copy. */
  readonly onUnreadable?: UnreadableSink;
  /** Bytes done, and to do; called often. */
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Copies `source` to the start of `target`, which is at least as large. What the source knows to be zero is never read. Data
 * is read in order, in pieces of 1 MiB, and written while the next pieces are read; to a file that is new threads copy it by themselves. The
 * target is not flushed.
 *
 * Fails with the first error of either side, when nothing is in flight any more.
 */
export async function copyDisk(source: JoinedDisk, target: BlockDevice, options: CopyOptions): Promise<void> {
  const copier = new Copier(source, target, options);
  try {
    await copier.run();
  } finally {
    await copier.settled();
  }
  copier.throwFailure();
}

class Copier {
  readonly #source: JoinedDisk;
  readonly #target: BlockDevice;
  readonly #options: CopyOptions;
  readonly #buffers: BufferPool;
  readonly #pace: CopyPace;
  readonly #targetIsZero: boolean;
  #failure: { readonly error: unknown } | undefined;
  #done = 0;
  /** Bytes of data that were come across. */
  #met = 0;
  /** Undefined as long as there is little to do. */
  #threads: CopyingThreads | "none" | undefined;

  constructor(source: JoinedDisk, target: BlockDevice, options: CopyOptions) {
    this.#source = source;
    this.#target = target;
    this.#options = options;
    this.#pace = new CopyPace(options.rate);
    this.#targetIsZero = options.targetIsZero && options.targetHasBacking !== true;
    this.#buffers = new BufferPool(options.piecesInFlight ?? DEFAULT_PIECES, PIECE_BYTES);
  }

  async run(): Promise<void> {
    for await (const extent of this.#source.extents()) {
      if (this.#failure !== undefined) return;
      if (this.#options.targetHasBacking === true && extent.depth > 0) this.#progress(extent.length);
      else if (extent.zero) await this.#zero(extent.offset, extent.length);
      else await this.#copyExtent(extent);
    }
  }

  async settled(): Promise<void> {
    const threads = this.#threads;
    if (typeof threads === "object") {
      await threads.settled();
      await threads.close();
    }
    await this.#buffers.allBack();
  }

  async #copyExtent(extent: BlockExtent): Promise<void> {
    const end = extent.offset + extent.length;
    for (let at = extent.offset; at < end && this.#failure === undefined; ) {
      if (this.#met > ALONE_BYTES) this.#threads ??= await this.#startThreads();
      const threads = this.#met > SHARED_FROM_BYTES ? this.#threads : undefined;
      const taken = typeof threads === "object" ? await threads.take(extent, at, end) : 0;
      const count = taken > 0 ? taken : Math.min(end - at, TURN_BYTES);
      if (taken === 0) await this.#copy(at, at + count);
      this.#met += count;
      at += count;
    }
  }

  async #startThreads(): Promise<CopyingThreads | "none"> {
    const { sparseBytes = DEFAULT_SPARSE_BYTES, rate = 0 } = this.#options;
    if (!this.#targetIsZero || sparseBytes !== DEFAULT_SPARSE_BYTES || rate > 0) return "none";
    const { CopyingThreads, copiedFiles } = await import("./copying-threads.js");
    const files = copiedFiles(this.#source.only, this.#target);
    if (files === undefined) return "none";
    const here = ({ offset, length }: DiskPart): Promise<void> => this.#copy(offset, offset + length);
    return new CopyingThreads(files, (length) => this.#progress(length), here);
  }

  throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async #zero(offset: number, length: number): Promise<void> {
    if (this.#options.sparseBytes === 0) {
      await this.#copy(offset, offset + length);
      return;
    }
    if (!this.#targetIsZero) await this.#target.writeZeroes(offset, length);
    this.#progress(length);
  }

  async #copy(from: number, end: number): Promise<void> {
    for (let at = from; at < end && this.#failure === undefined; ) {
      const length = Math.min(end - at, PIECE_BYTES - (at % PIECE_BYTES));
      const buffer = this.#buffers.takeNow() ?? (await this.#buffers.take());
      this.#startPiece(at, buffer, length);
      at += length;
      const early = this.#pace.spend(length);
      if (early !== undefined) await early;
    }
  }

  /** Reads and writes a piece; the buffer goes back when that is done, now or later. */
  #startPiece(offset: number, buffer: Uint8Array, length: number): void {
    const bytes = buffer.subarray(0, length);
    let work: MaybePromise<void>;
    try {
      const read = this.#read(offset, bytes);
      work = isPromise(read) ? read.then(() => this.#write(offset, bytes)) : this.#write(offset, bytes);
    } catch (error) {
      work = Promise.reject(error);
    }
    if (isPromise(work)) {
      work.then(
        () => this.#endPiece(buffer, length),
        (error: unknown) => {
          this.#failure ??= { error };
          this.#endPiece(buffer, length);
        },
      );
    } else {
      this.#endPiece(buffer, length);
    }
  }

  #endPiece(buffer: Uint8Array, length: number): void {
    this.#buffers.give(buffer);
    this.#progress(length);
  }

  #progress(length: number): void {
    this.#done += length;
    this.#options.onProgress?.(this.#done, this.#source.size);
  }

  #read(offset: number, bytes: Uint8Array): MaybePromise<void> {
    return this.#source.readWithHoles(offset, bytes, this.#options.onUnreadable);
  }

  #write(offset: number, bytes: Uint8Array): MaybePromise<void> {
    const { sparseBytes = DEFAULT_SPARSE_BYTES } = this.#options;
    const targetIsZero = this.#targetIsZero;
    if (sparseBytes === 0) return this.#target.write(offset, bytes);
    const waits: Promise<void>[] = [];
    let written = 0;
    const follow = (wait: MaybePromise<void>): void => {
      if (isPromise(wait)) waits.push(wait);
    };
    for (const { start, end } of dataSpans(bytes, offset, sparseBytes)) {
      if (!targetIsZero && start > written) follow(this.#target.writeZeroes(offset + written, start - written));
      follow(this.#target.write(offset + start, bytes.subarray(start, end)));
      written = end;
    }
    if (!targetIsZero && written < bytes.length) {
      follow(this.#target.writeZeroes(offset + written, bytes.length - written));
    }
    if (waits.length === 0) return undefined;
    return waits.length === 1 ? waits[0] : whenAll(waits);
  }
}
