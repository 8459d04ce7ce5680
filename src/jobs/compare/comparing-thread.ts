import { MiB } from "../../base/units.js";
import type { BlockDevice } from "../../block/block-device.js";
import { hostPlace } from "../../block/host-place.js";
import { SideThread } from "../../host/side-thread.js";
import type { PairedRun } from "./paired-runs.js";

/** Bytes that go to the thread in one request, and requests that it has at a time. */
const BATCH_BYTES = 4 * MiB;
const BATCHES = 2;
/** Parts of runs in one request. */
const BATCH_PARTS = 1024;

/** Two files, by descriptors, and places in them: offset in the first, offset in the second, and length, again and again. */
export interface ComparedPlaces {
  readonly first: number;
  readonly second: number;
  readonly places: readonly number[];
}

/** A part of a run. Offset and length in bytes of the disk. */
export interface RunPart {
  readonly run: PairedRun;
  readonly offset: number;
  readonly length: number;
}

/**
 * Compares what two disks have as it is in files of this host in another thread. It only finds out what is equal: everything else, failures
 * included, is left to `otherwise`.
 */
export class ComparingThread {
  readonly #thread: SideThread<ComparedPlaces, boolean>;
  readonly #first: number;
  readonly #second: number;
  readonly #equal: (length: number) => void;
  readonly #otherwise: (part: RunPart) => Promise<void>;
  readonly #underWay = new Set<Promise<void>>();
  #batch: RunPart[] = [];
  #batchBytes = 0;

  /** `equal` is told the lengths of equal parts; `otherwise` never fails. */
  constructor(
    descriptors: { readonly first: number; readonly second: number },
    equal: (length: number) => void,
    otherwise: (part: RunPart) => Promise<void>,
  ) {
    this.#thread = new SideThread(placesComparer);
    this.#first = descriptors.first;
    this.#second = descriptors.second;
    this.#equal = equal;
    this.#otherwise = otherwise;
  }

  /** Takes bytes from `offset` on of `run`, up to `end`; how many, 0 when it has enough to do or cannot read them. */
  take(run: PairedRun, offset: number, end: number): number {
    if (
      this.#underWay.size >= BATCHES ||
      hostPlace(run.first, 0) === undefined ||
      hostPlace(run.second, 0) === undefined
    ) {
      return 0;
    }
    const length = Math.min(end - offset, BATCH_BYTES - this.#batchBytes);
    this.#batch.push({ run, offset, length });
    this.#batchBytes += length;
    if (this.#batchBytes === BATCH_BYTES || this.#batch.length === BATCH_PARTS) this.#send();
    return length;
  }

  /** Resolves when everything that was taken is judged. */
  async settled(): Promise<void> {
    if (this.#batch.length > 0) this.#send();
    await Promise.all(this.#underWay);
  }

  close(): Promise<void> {
    return this.#thread.close();
  }

  #send(): void {
    const parts = this.#batch;
    this.#batch = [];
    this.#batchBytes = 0;
    const work = this.#compare(parts).finally(() => this.#underWay.delete(work));
    this.#underWay.add(work);
  }

  async #compare(parts: readonly RunPart[]): Promise<void> {
    const places = parts.flatMap(({ run, offset, length }) => [
      hostPlace(run.first, offset) ?? 0,
      hostPlace(run.second, offset) ?? 0,
      length,
    ]);
    const request = { first: this.#first, second: this.#second, places };
    if (await this.#thread.ask(request).catch(() => false)) {
      for (const { length } of parts) this.#equal(length);
      return;
    }
    for (const part of parts) await this.#otherwise(part);
  }
}

/** The descriptors of two disks that nobody changes and that have files of this host. */
export function comparedFiles(
  first: BlockDevice,
  second: BlockDevice,
): { readonly first: number; readonly second: number } | undefined {
  if (!first.readOnly || !second.readOnly) return undefined;
  const [a, b] = [first.descriptor, second.descriptor];
  return a === undefined || b === undefined ? undefined : { first: a, second: b };
}

/** Runs in the thread: uses nothing from around it. What lies past the end of a file is zeros. */
export function placesComparer(): (request: ComparedPlaces) => boolean {
  const { readSync } = process.getBuiltinModule("node:fs");
  // Both fit the cache of a processor core.
  const pieceBytes = 512 * 1024;
  const [a, b] = [Buffer.alloc(pieceBytes), Buffer.alloc(pieceBytes)];
  const fill = (into: Buffer, length: number, fd: number, at: number): void => {
    for (let done = 0; done < length; ) {
      const count = readSync(fd, into, done, length - done, at + done);
      if (count === 0) {
        into.fill(0, done, length);
        return;
      }
      done += count;
    }
  };
  return ({ first, second, places }) => {
    try {
      for (let index = 0; index < places.length; index += 3) {
        const [atFirst = 0, atSecond = 0, length = 0] = places.slice(index, index + 3);
        for (let done = 0; done < length; done += pieceBytes) {
          const count = Math.min(pieceBytes, length - done);
          fill(a, count, first, atFirst + done);
          fill(b, count, second, atSecond + done);
          if (a.compare(b, 0, count, 0, count) !== 0) return false;
        }
      }
      return true;
    } catch {
      // Whoever asked tries by itself, and tells what is wrong.
      return false;
    }
  };
}
