import type { BlockDevice, BlockExtent } from "../../block/block-device.js";

/** Which of two disks. */
export type Side = "first" | "second";

/** What can say how its bytes are stored. */
export type Mapped = Pick<BlockDevice, "size" | "extents">;

/** A run of bytes that is stored in one way on each disk. */
export interface PairedRun {
  /** Guest offset in bytes. */
  readonly offset: number;
  /** Bytes, never 0. */
  readonly length: number;
  /** The runs that it is part of; undefined past the end of the disk. */
  readonly first: BlockExtent | undefined;
  readonly second: BlockExtent | undefined;
}

/** The disk could not say where its bytes are. */
export class UnmappedDisk extends Error {
  readonly side: Side;

  constructor(side: Side, cause: unknown) {
    super("the disk cannot be mapped", { cause });
    this.side = side;
  }
}

/** The extents of one disk, looked at one at a time. */
class RunCursor {
  readonly #device: Mapped;
  #runs: AsyncIterator<BlockExtent> | undefined;
  readonly #side: Side;
  #run: BlockExtent | undefined;

  constructor(device: Mapped, side: Side) {
    this.#device = device;
    this.#side = side;
  }

  /** The run that holds `offset`, which never goes back; undefined past the end. */
  async at(offset: number): Promise<BlockExtent | undefined> {
    while (this.#run === undefined || this.#run.offset + this.#run.length <= offset) {
      const next = await this.#next();
      if (next.done === true) return undefined;
      this.#run = next.value;
    }
    return this.#run;
  }

  async #next(): Promise<IteratorResult<BlockExtent>> {
    try {
      // A disk without bytes is never asked.
      this.#runs ??= this.#device.extents(0, this.#device.size)[Symbol.asyncIterator]();
      return await this.#runs.next();
    } catch (error) {
      throw new UnmappedDisk(this.#side, error);
    }
  }

  async end(): Promise<void> {
    await this.#runs?.return?.();
  }
}

/** Both disks run by run, up to the end of the larger one. Throws {@link UnmappedDisk}. */
export async function* pairedRuns(first: Mapped, second: Mapped): AsyncGenerator<PairedRun> {
  const cursors = [new RunCursor(first, "first"), new RunCursor(second, "second")] as const;
  const size = Math.max(first.size, second.size);
  try {
    for (let offset = 0; offset < size; ) {
      const a = offset < first.size ? await cursors[0].at(offset) : undefined;
      const b = offset < second.size ? await cursors[1].at(offset) : undefined;
      const end = Math.min(endOf(a), endOf(b));
      yield { offset, length: end - offset, first: a, second: b };
      offset = end;
    }
  } finally {
    await cursors[0].end();
    await cursors[1].end();
  }
}

function endOf(run: BlockExtent | undefined): number {
  return run === undefined ? Number.POSITIVE_INFINITY : run.offset + run.length;
}
