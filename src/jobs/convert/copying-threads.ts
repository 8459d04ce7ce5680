import { availableParallelism } from "node:os";
import { MiB } from "../../base/units.js";
import type { BlockDevice, BlockExtent } from "../../block/block-device.js";
import { SideThread } from "../../host/side-thread.js";

/** Bytes that go to a thread in one request, and requests that it has at a time: it need not sleep between two. */
const BATCH_BYTES = 4 * MiB;
const BATCHES = 2;
/** Parts in one request. */
const BATCH_PARTS = 1024;
/** Files take one write at a time: more threads would wait for each other. */
const THREADS = 2;

/** Two files, by descriptors, and what is copied: offset in the source, offset in the target, and length, again and again. */
interface CopiedPlaces {
  readonly source: number;
  readonly target: number;
  readonly places: readonly number[];
}

/** A part of the disk, in bytes. */
export interface DiskPart {
  readonly offset: number;
  readonly length: number;
}

interface Team {
  readonly thread: SideThread<CopiedPlaces, boolean>;
  underWay: number;
}

/**
 * Copies data from a file of this host to a raw disk in another one, in threads that read and write by themselves: bytes are written by the
 * processor that has just read them. Zeros are left out in units of 4 KiB. Whatever fails is left to `otherwise`.
 */
export class CopyingThreads {
  readonly #threads: readonly Team[];
  readonly #source: number;
  readonly #target: number;
  readonly #copied: (length: number) => void;
  readonly #otherwise: (part: DiskPart) => Promise<void>;
  readonly #underWay = new Set<Promise<void>>();
  #batch: (DiskPart & { readonly host: number })[] = [];
  #batchBytes = 0;
  #areThere = false;

  /** `copied` is told the lengths of parts that are done; `otherwise` never fails. */
  constructor(
    descriptors: { readonly source: number; readonly target: number },
    copied: (length: number) => void,
    otherwise: (part: DiskPart) => Promise<void>,
  ) {
    const count = Math.min(THREADS, availableParallelism());
    this.#threads = Array.from({ length: count }, () => ({ thread: new SideThread(placesCopier), underWay: 0 }));
    this.#source = descriptors.source;
    this.#target = descriptors.target;
    this.#copied = copied;
    this.#otherwise = otherwise;
    void this.#greet();
  }

  /**
   * Takes bytes of `extent` from `offset` on, up to `end`, and resolves when the threads may have more; how many, 0 when the threads are not
   * there yet or cannot read them.
   */
  async take(extent: BlockExtent, offset: number, end: number): Promise<number> {
    const host = hostPlace(extent, offset);
    if (host === undefined || !this.#areThere) return 0;
    const length = Math.min(end - offset, BATCH_BYTES - this.#batchBytes);
    this.#batch.push({ offset, length, host });
    this.#batchBytes += length;
    if (this.#batchBytes === BATCH_BYTES || this.#batch.length === BATCH_PARTS) this.#send();
    while (this.#underWay.size >= BATCHES * this.#threads.length) await Promise.race(this.#underWay);
    return length;
  }

  /** Resolves when everything that was taken is copied, or was left to `otherwise`. */
  async settled(): Promise<void> {
    if (this.#batch.length > 0) this.#send();
    await Promise.all(this.#underWay);
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map(({ thread }) => thread.close()));
  }

  /** Threads that cannot be had are never there. */
  async #greet(): Promise<void> {
    const nothing = { source: this.#source, target: this.#target, places: [] };
    const answers = this.#threads.map(({ thread }) => thread.ask(nothing).catch(() => false));
    this.#areThere = (await Promise.all(answers)).every((answer) => answer);
  }

  #send(): void {
    const parts = this.#batch;
    this.#batch = [];
    this.#batchBytes = 0;
    const work = this.#copy(parts).finally(() => this.#underWay.delete(work));
    this.#underWay.add(work);
  }

  async #copy(parts: readonly (DiskPart & { readonly host: number })[]): Promise<void> {
    const places = parts.flatMap(({ host, offset, length }) => [host, offset, length]);
    const team = this.#threads.reduce((best, one) => (one.underWay < best.underWay ? one : best));
    team.underWay += 1;
    const request = { source: this.#source, target: this.#target, places };
    const isDone = await team.thread.ask(request).catch(() => false);
    team.underWay -= 1;
    for (const part of parts) {
      if (isDone) this.#copied(part.length);
      else await this.#otherwise(part);
    }
  }
}

/** The descriptors of a disk that nobody changes and of a raw disk, where both have files of this host. */
export function copiedFiles(
  source: BlockDevice | undefined,
  target: BlockDevice,
): { readonly source: number; readonly target: number } | undefined {
  if (source?.readOnly !== true || target.format !== "raw") return undefined;
  const [from, to] = [source.descriptor, target.descriptor];
  return from === undefined || to === undefined ? undefined : { source: from, target: to };
}

/** Where the file of the disk itself has the byte at `offset`. */
function hostPlace(extent: BlockExtent, offset: number): number | undefined {
  if (extent.hostOffset === undefined || extent.file !== undefined || extent.depth > 0) return undefined;
  return extent.hostOffset + offset - extent.offset;
}

/** Runs in the thread: uses nothing from around it. What lies past the end of the source is zeros. */
function placesCopier(): (request: CopiedPlaces) => boolean {
  const { readSync, writeSync } = process.getBuiltinModule("node:fs");
  // Fits the cache of a processor core.
  const pieceBytes = 256 * 1024;
  const unit = 4096;
  const piece = Buffer.alloc(pieceBytes);
  const zeros = Buffer.alloc(unit);
  const fill = (length: number, fd: number, at: number): void => {
    for (let done = 0; done < length; ) {
      const count = readSync(fd, piece, done, length - done, at + done);
      if (count === 0) {
        piece.fill(0, done, length);
        return;
      }
      done += count;
    }
  };
  const isZero = (start: number, end: number): boolean =>
    piece[start] === 0 && piece[end - 1] === 0 && zeros.compare(piece, start, end, 0, end - start) === 0;
  const write = (fd: number, at: number, start: number, end: number): void => {
    for (let done = start; done < end; ) {
      const count = writeSync(fd, piece, done, end - done, at + done);
      if (count === 0) throw new Error("nothing was written");
      done += count;
    }
  };
  const copy = (target: number, at: number, length: number): void => {
    let start = 0;
    // Units begin at multiples of their size on the disk.
    for (let from = 0, end = Math.min(length, unit - (at % unit)); from < length; ) {
      if (isZero(from, end)) {
        write(target, at, start, from);
        start = end;
      }
      from = end;
      end = Math.min(length, end + unit);
    }
    write(target, at, start, length);
  };
  return ({ source, target, places }) => {
    try {
      for (let index = 0; index < places.length; index += 3) {
        const [from = 0, to = 0, length = 0] = places.slice(index, index + 3);
        for (let done = 0; done < length; done += pieceBytes) {
          const count = Math.min(pieceBytes, length - done);
          fill(count, source, from + done);
          copy(target, to + done, count);
        }
      }
      return true;
    } catch {
      // Whoever asked tries by itself, and tells what is wrong.
      return false;
    }
  };
}
