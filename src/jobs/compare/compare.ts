import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { KiB, MiB } from "../../base/units.js";
import type { BlockDevice, BlockExtent } from "../../block/block-device.js";
import { BufferPool } from "../convert/buffer-pool.js";
import { geometryDifference, pointerDifference, type ZoneDifference } from "./compare-zones.js";
import { ComparingThread, comparedFiles, type RunPart } from "./comparing-thread.js";
import { firstDifference, firstNonZero } from "./first-difference.js";
import { type PairedRun, pairedRuns, type Side, UnmappedDisk } from "./paired-runs.js";

/** Bytes that are read at once: two pieces stay in the cache of a processor core while they are compared. */
const PIECE_BYTES = 256 * KiB;
/** Pieces in flight; memory is twice that many pieces. */
const PIECES = 8;
/** Bytes that this thread compares before another one is worth its start, which takes some 30 ms. */
const ALONE_BYTES = 32 * MiB;
/** Bytes that this thread compares before it looks whether the other one has something to tell. */
const TURN_BYTES = MiB;
/** The unit in which an unreadable place is told, as the stock tool does. */
const CHUNK_BYTES = 2 * MiB;

/** How two disks are compared. */
export interface CompareOptions {
  /** Differences in size and in how bytes are stored (data, zeros, nothing) count as well. Default false. */
  readonly strict?: boolean;
  /** The names of the disks' files are paths: one name is one file, and what both disks have there need not be read. Default false. */
  readonly namesArePaths?: boolean;
  /** Bytes done, and to do; called often. */
  readonly onProgress?: (done: number, total: number) => void;
  /** The disks are equal as far as the smaller one goes, and the rest of the larger one is looked at now. */
  readonly onSizesDiffer?: () => void;
}

/** What a comparison found first. Offsets in bytes. */
export type Comparison =
  /** Equal for the guest. `zones`: whether they have zones, and these are equal too. */
  | { readonly verdict: "same"; readonly zones: "none" | "same" | "one-sided" }
  /** The sector (512 bytes) at `offset` differs. */
  | { readonly verdict: "content"; readonly offset: number }
  /** Strict: from `offset` on, bytes are stored in different ways. */
  | { readonly verdict: "status"; readonly offset: number }
  /** Strict: the sizes differ. */
  | { readonly verdict: "size" }
  | { readonly verdict: "zones"; readonly difference: ZoneDifference }
  /** Strict: one disk has zones. */
  | { readonly verdict: "zoned" }
  /** Reading failed in the range that starts at `offset`. */
  | {
      readonly verdict: "unreadable";
      readonly side: "first" | "second";
      readonly offset: number;
      readonly error: unknown;
    }
  /** The disk cannot say how its bytes are stored. */
  | { readonly verdict: "unmapped"; readonly side: "first" | "second"; readonly error: unknown };

/**
 * Compares what two disks read as. A larger disk is equal when the rest of it reads as zeros. What is known to be zero is not read. Of two zoned disks the zones are compared, too: how the disk is
 * divided first, write pointers last. Failures of the disks are results. Nothing is closed.
 */
export async function compareDisks(
  first: BlockDevice,
  second: BlockDevice,
  options: CompareOptions = {},
): Promise<Comparison> {
  if (options.strict === true && first.size !== second.size) return { verdict: "size" };
  const zones = [first.limits.zoned, second.limits.zoned] as const;
  if (options.strict === true && (zones[0] === undefined) !== (zones[1] === undefined)) return { verdict: "zoned" };
  const both = zones[0] !== undefined && zones[1] !== undefined;
  const geometry = both ? geometryDifference(zones[0], zones[1]) : undefined;
  if (geometry !== undefined) return { verdict: "zones", difference: geometry };
  const found = await new DiskComparison(first, second, options).run();
  if (found !== undefined) return found;
  const pointers = both ? pointerDifference(first, second) : undefined;
  if (pointers !== undefined) return { verdict: "zones", difference: pointers };
  const none = zones[0] === undefined && zones[1] === undefined;
  return { verdict: "same", zones: both ? "same" : none ? "none" : "one-sided" };
}

type Finding = Extract<Comparison, { verdict: "content" | "status" | "unreadable" | "unmapped" }>;

class DiskComparison {
  readonly #first: BlockDevice;
  readonly #second: BlockDevice;
  readonly #options: CompareOptions;
  readonly #total: number;
  readonly #buffers = new BufferPool(PIECES, 2 * PIECE_BYTES);
  /** The finding at the lowest place so far; pieces behind it are not begun any more. */
  #found: { readonly at: number; readonly finding: Finding } | undefined;
  #done = 0;
  /** Bytes handed out to this thread. */
  #here = 0;
  /** Undefined as long as there is little to do. */
  #thread: ComparingThread | "none" | undefined;

  constructor(first: BlockDevice, second: BlockDevice, options: CompareOptions) {
    this.#first = first;
    this.#second = second;
    this.#options = options;
    this.#total = Math.max(first.size, second.size);
  }

  async run(): Promise<Finding | undefined> {
    const common = Math.min(this.#first.size, this.#second.size);
    let toldSizes = common === this.#total;
    try {
      for await (const run of pairedRuns(this.#first, this.#second)) {
        if (run.offset >= common && !toldSizes) {
          await this.#settled();
          if (this.#found !== undefined) break;
          toldSizes = true;
          this.#options.onSizesDiffer?.();
        }
        await this.#compareRun(run);
        if (this.#found !== undefined) break;
      }
    } catch (error) {
      if (!(error instanceof UnmappedDisk)) throw error;
      this.#note(this.#total, { verdict: "unmapped", side: error.side, error: error.cause });
    } finally {
      await this.#settled();
      if (this.#thread instanceof ComparingThread) await this.#thread.close();
    }
    return this.#found?.finding;
  }

  async #settled(): Promise<void> {
    if (this.#thread instanceof ComparingThread) await this.#thread.settled();
    await this.#buffers.allBack();
  }

  #note(at: number, finding: Finding): void {
    if (this.#found === undefined || at < this.#found.at) this.#found = { at, finding };
  }

  async #compareRun(run: PairedRun): Promise<void> {
    const { offset, length, first, second } = run;
    if (this.#options.strict === true && !isStoredAlike(first, second)) {
      this.#note(offset, { verdict: "status", offset });
      return;
    }
    const reads = { first: isRead(first), second: isRead(second) };
    if ((!reads.first && !reads.second) || this.#isSamePlace(run)) {
      this.#progress(length);
      return;
    }
    for (let at = offset; at < offset + length && this.#found === undefined; ) {
      const thread = reads.first && reads.second ? this.#threadNow() : undefined;
      const taken = thread?.take(run, at, offset + length) ?? 0;
      at += taken;
      if (taken > 0) continue;
      const count = Math.min(offset + length - at, TURN_BYTES);
      await this.#compareHere({ run, offset: at, length: count });
      at += count;
      this.#here += count;
      if (thread !== undefined) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** The other thread, once there was enough to do to start it. */
  #threadNow(): ComparingThread | undefined {
    if (this.#thread === undefined && this.#here >= ALONE_BYTES) this.#thread = this.#startThread() ?? "none";
    return this.#thread instanceof ComparingThread ? this.#thread : undefined;
  }

  #startThread(): ComparingThread | undefined {
    const files = comparedFiles(this.#first, this.#second);
    if (files === undefined) return undefined;
    const otherwise = async (part: RunPart): Promise<void> => {
      await this.#compareHere(part);
      await this.#buffers.allBack();
    };
    return new ComparingThread(files, (length) => this.#progress(length), otherwise);
  }

  /** Begins to compare a part of a run, as far as nothing was found before it. */
  async #compareHere({ run, offset, length }: RunPart): Promise<void> {
    const reads = { first: isRead(run.first), second: isRead(run.second) };
    for (let at = offset; at < offset + length && at < (this.#found?.at ?? at + 1); ) {
      const chunk = at - ((at - run.offset) % CHUNK_BYTES);
      const count = Math.min(PIECE_BYTES - ((at - run.offset) % PIECE_BYTES), offset + length - at);
      const buffer = this.#buffers.takeNow() ?? (await this.#buffers.take());
      this.#startPiece(new Piece(at, count, chunk, buffer, reads));
      at += count;
    }
  }

  /**
   * Reads both sides; what they are is judged when both are there, now or later. The second side goes first: it may be read in the
   * thread pool, while this thread reads the first one.
   */
  #startPiece(piece: Piece): void {
    const waits: Promise<void>[] = [];
    for (const side of ["second", "first"] as const) {
      const wait = piece.reads[side] ? this.#read(side, piece) : undefined;
      if (wait !== undefined) waits.push(wait);
    }
    if (waits.length === 0) this.#judge(piece);
    else void Promise.all(waits).then(() => this.#judge(piece));
  }

  /** Never fails: a failure is a finding. */
  #read(side: Side, piece: Piece): Promise<void> | undefined {
    const failed = (error: unknown): void => {
      piece.failed = true;
      this.#note(piece.at, { verdict: "unreadable", side, offset: piece.chunk, error });
    };
    try {
      const device = side === "first" ? this.#first : this.#second;
      const wait: MaybePromise<void> = device.read(piece.at, piece[side]);
      return isPromise(wait) ? wait.catch(failed) : undefined;
    } catch (error) {
      failed(error);
      return undefined;
    }
  }

  #judge(piece: Piece): void {
    const difference = piece.failed ? -1 : piece.difference();
    if (difference >= 0) this.#note(piece.at, { verdict: "content", offset: piece.at + difference });
    this.#buffers.give(piece.buffer);
    this.#progress(piece.length);
  }

  /** Both disks have the run in the same bytes of the same file, as overlays of one image have what they did not change. */
  #isSamePlace({ offset, first, second }: PairedRun): boolean {
    if (this.#options.namesArePaths !== true) return false;
    if (first?.hostOffset === undefined || second?.hostOffset === undefined) return false;
    if ((first.file ?? this.#first.name) !== (second.file ?? this.#second.name)) return false;
    return first.hostOffset + offset - first.offset === second.hostOffset + offset - second.offset;
  }

  #progress(length: number): void {
    this.#done += length;
    if (this.#found === undefined) this.#options.onProgress?.(this.#done, this.#total);
  }
}

/** A few bytes of both disks on their way. */
class Piece {
  readonly at: number;
  readonly length: number;
  /** Start of the chunk that the piece is part of. */
  readonly chunk: number;
  readonly buffer: Uint8Array;
  /** A side that is not read is zeros. */
  readonly reads: Readonly<Record<Side, boolean>>;
  readonly first: Uint8Array;
  readonly second: Uint8Array;
  failed = false;

  constructor(at: number, length: number, chunk: number, buffer: Uint8Array, reads: Readonly<Record<Side, boolean>>) {
    this.at = at;
    this.length = length;
    this.chunk = chunk;
    this.buffer = buffer;
    this.reads = reads;
    this.first = buffer.subarray(0, length);
    this.second = buffer.subarray(PIECE_BYTES, PIECE_BYTES + length);
  }

  difference(): number {
    if (this.reads.first && this.reads.second) return firstDifference(this.first, this.second);
    return firstNonZero(this.reads.first ? this.first : this.second);
  }
}

function isRead(run: BlockExtent | undefined): boolean {
  return run !== undefined && !run.zero;
}

/** What the stock tool's strict mode looks at. */
function isStoredAlike(a: BlockExtent | undefined, b: BlockExtent | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.kind === b.kind && a.zero === b.zero && (a.hostOffset === undefined) === (b.hostOffset === undefined);
}
