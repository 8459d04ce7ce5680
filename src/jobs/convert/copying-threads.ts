import { availableParallelism } from "node:os";
import { MiB } from "../../base/units.js";
import type { BlockDevice, BlockExtent, DiskFiller, DiskPart, FilledPlace } from "../../block/block-device.js";
import { hostPlace } from "../../block/host-place.js";
import { SideThread } from "../../host/side-thread.js";
import { BatchTurn } from "./batch-turn.js";
import { type CopiedPlaces, placesCopier } from "./places-copier.js";

/** Bytes that go to a thread in one request, and requests that it has at a time: it need not sleep between two. */
const BATCH_BYTES = 8 * MiB;
const BATCHES = 2;
/** Parts in one request. */
const BATCH_PARTS = 1024;
/** Files take one write at a time: more threads would wait for each other. */
const THREADS = 2;

/** Between which files threads copy, by descriptors. */
export interface CopiedFiles {
  readonly source: number;
  readonly target: number;
  /** Finds places in the target; undefined where every part has its own offset there. */
  readonly filler: DiskFiller | undefined;
  /** Bytes that have a place of their own in the target; 1 without a filler. */
  readonly unit: number;
}

/** A part, and where it is in the file of the source. */
interface SourcePart extends DiskPart {
  readonly host: number;
}

/**
 * Copies data from a file of this host to a disk in another one, in threads that read and write by themselves: bytes are written by the
 * processor that has just read them. Zeros are left out in units of 4 KiB, or not to touch what is there, in whole units of the target.
 * Whatever threads cannot do is copied by `here`.
 */
export class CopyingThreads {
  readonly #threads: readonly SideThread<CopiedPlaces, Uint8Array | undefined>[];
  readonly #files: CopiedFiles;
  readonly #copied: (length: number) => void;
  readonly #here: (part: DiskPart) => Promise<void>;
  readonly #areThere: Promise<boolean>;
  /** The oldest first. */
  readonly #turns: BatchTurn[] = [];
  #batch: SourcePart[] = [];
  #batchBytes = 0;

  /** `copied` is told the lengths of parts that are done by threads; `here` never fails. */
  constructor(files: CopiedFiles, copied: (length: number) => void, here: (part: DiskPart) => Promise<void>) {
    const count = Math.min(THREADS, availableParallelism());
    this.#threads = Array.from({ length: count }, () => new SideThread(placesCopier));
    this.#files = files;
    this.#copied = copied;
    this.#here = here;
    this.#areThere = this.#greet();
  }

  /**
   * Takes bytes of `extent` from `offset` on, up to `end`, and resolves when the threads may have more; how many, 0 when there are no
   * threads or they cannot read them.
   */
  async take(extent: BlockExtent, offset: number, end: number): Promise<number> {
    const host = hostPlace(extent, offset);
    if (host === undefined || !(await this.#areThere)) return 0;
    const { unit } = this.#files;
    const inside = offset % unit;
    const whole = inside > 0 ? 0 : Math.min(end - offset - ((end - offset) % unit), BATCH_BYTES - this.#batchBytes);
    if (whole === 0) {
      const length = Math.min(end - offset, unit - inside);
      await this.#here({ offset, length });
      return length;
    }
    this.#batch.push({ offset, length: whole, host });
    this.#batchBytes += whole;
    if (this.#batchBytes === BATCH_BYTES || this.#batch.length === BATCH_PARTS) await this.#send();
    return whole;
  }

  /** Resolves when everything that was taken is copied. */
  async settled(): Promise<void> {
    if (this.#batch.length > 0) await this.#send();
    while (this.#turns.length > 0) await this.#endOldest();
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }

  /** Threads that cannot be had are never there. */
  async #greet(): Promise<boolean> {
    const nothing = { ...this.#descriptors, places: [], unit: 0 };
    const answers = this.#threads.map((thread) => thread.ask(nothing).catch(() => undefined));
    return (await Promise.all(answers)).every((answer) => answer !== undefined);
  }

  get #descriptors(): { readonly source: number; readonly target: number } {
    return { source: this.#files.source, target: this.#files.target };
  }

  async #send(): Promise<void> {
    const parts = this.#batch;
    this.#batch = [];
    this.#batchBytes = 0;
    if (this.#turns.length >= BATCHES * this.#threads.length) await this.#endOldest();
    const turn = new BatchTurn((own) => this.#copy(parts, own));
    this.#turns.push(turn);
    await turn.placed;
  }

  #endOldest(): Promise<void> | undefined {
    return this.#turns.shift()?.end();
  }

  async #copy(parts: readonly SourcePart[], turn: BatchTurn): Promise<void> {
    const { filler } = this.#files;
    const isDone = await (filler === undefined ? this.#toRaw(parts, turn) : this.#fill(filler, parts, turn));
    for (const part of parts) {
      if (isDone) this.#copied(part.length);
      else await this.#here(part);
    }
  }

  async #toRaw(parts: readonly SourcePart[], turn: BatchTurn): Promise<boolean> {
    turn.place();
    const places = parts.flatMap(({ host, offset, length }) => [host, offset, length, 1]);
    return (await this.#ask({ ...this.#descriptors, places, unit: 0 })) !== undefined;
  }

  async #fill(filler: DiskFiller, parts: readonly SourcePart[], turn: BatchTurn): Promise<boolean> {
    const { unit } = this.#files;
    const store = (places: readonly FilledPlace[]): Promise<Uint8Array | undefined> => {
      turn.place();
      return this.#ask({ ...this.#descriptors, places: fromSource(places, parts), unit });
    };
    return filler.fillParts(parts, store, turn.ending).catch(() => false);
  }

  #ask(request: CopiedPlaces): Promise<Uint8Array | undefined> {
    const thread = this.#threads.reduce((best, one) => (one.pending < best.pending ? one : best));
    return thread.ask(request).catch(() => undefined);
  }
}

/** Where threads may copy from a disk that nobody changes to a raw disk, or to one that is filled, where both have files of this host. */
export function copiedFiles(source: BlockDevice | undefined, target: BlockDevice): CopiedFiles | undefined {
  const { filler } = target;
  if (source?.readOnly !== true || (target.format !== "raw" && filler === undefined)) return undefined;
  const [from, to] = [source.descriptor, target.descriptor];
  if (from === undefined || to === undefined) return undefined;
  return { source: from, target: to, filler, unit: filler === undefined ? 1 : target.limits.optimalAlignment };
}

/** What threads copy to `places`, which are pieces of `parts` in the same order. */
function fromSource(places: readonly FilledPlace[], parts: readonly SourcePart[]): number[] {
  const copied: number[] = [];
  let index = 0;
  for (const { offset, length, host, isZero } of places) {
    let part = parts[index] as SourcePart;
    while (offset >= part.offset + part.length) part = parts[++index] as SourcePart;
    copied.push(part.host + offset - part.offset, host, length, isZero ? 1 : 0);
  }
  return copied;
}
