import { isPromise, type MaybePromise, whenAll } from "../base/maybe-promise.js";
import { BaseBlockDevice } from "../block/base-device.js";
import type { BlockDevice, BlockExtent } from "../block/block-device.js";
import type { Storage } from "../storage/storage.js";
import { backedExtents } from "./qcow2/backed-extents.js";

/** Where a run of guest bytes is. `length` in bytes, never 0. */
export type StoredRun =
  /** Known to be zeros; `allocated`: this image says so, otherwise it says nothing. */
  | { readonly kind: "zero"; readonly length: number; readonly allocated: boolean }
  /** One to one in `storage` from `at`. `flat`: however long, so that only the holes of the file tell what was written. */
  | {
      readonly kind: "data";
      readonly length: number;
      readonly storage: Storage;
      readonly at: number;
      readonly flat: boolean;
    }
  /** Inside a compressed block: `skip` bytes into what `unpack` gives. */
  | { readonly kind: "packed"; readonly length: number; readonly skip: number; unpack(): MaybePromise<Uint8Array> };

/** A disk image of a format that is only read: knows where each byte is. */
export interface StoredDisk {
  readonly format: string;
  /** How messages call it. */
  readonly name: string;
  /** Virtual size in bytes. */
  readonly size: number;
  /** Bytes that are stored together; undefined where there is no such unit. */
  readonly blockSize: number | undefined;
  /** What shows where nothing is stored; default: zeros. Closed by {@link close}. */
  readonly backing?: BlockDevice | undefined;
  /** The run that starts at guest `offset`; it may reach past the end of the disk. */
  locate(offset: number): MaybePromise<StoredRun>;
  close(): Promise<void>;
}

/** Turns a {@link StoredDisk} into a read-only block device. */
export class StoredDiskDevice extends BaseBlockDevice {
  readonly #disk: StoredDisk;

  constructor(disk: StoredDisk) {
    super({
      format: disk.format,
      name: disk.name,
      size: disk.size,
      readOnly: true,
      limits: { requestAlignment: 1, optimalAlignment: disk.blockSize ?? 1, zoned: undefined },
    });
    this.#disk = disk;
  }

  protected override doRead(offset: number, into: Uint8Array): MaybePromise<void> {
    return this.#readFrom(offset, into, 0, []);
  }

  /** Reads what is left of `into` after `done` bytes: runs are looked up one after the other, their data is read side by side. */
  #readFrom(offset: number, into: Uint8Array, done: number, waits: Promise<void>[]): MaybePromise<void> {
    try {
      for (let at = done; at < into.length; ) {
        const run = this.#disk.locate(offset + at);
        if (isPromise(run)) return this.#readAfter(run, offset, into, at, waits);
        at += this.#readRun(run, offset + at, into.subarray(at), waits);
      }
    } catch (error) {
      return Promise.allSettled(waits).then(() => {
        throw error;
      });
    }
    if (waits.length === 0) return undefined;
    return waits.length === 1 ? waits[0] : whenAll(waits);
  }

  async #readAfter(
    looking: Promise<StoredRun>,
    offset: number,
    into: Uint8Array,
    done: number,
    waits: Promise<void>[],
  ): Promise<void> {
    let run: StoredRun;
    try {
      run = await looking;
    } catch (error) {
      await Promise.allSettled(waits);
      throw error;
    }
    const next = done + this.#readRun(run, offset + done, into.subarray(done), waits);
    await this.#readFrom(offset, into, next, waits);
  }

  /** Starts to fill the start of `rest`; returns how many bytes of it. */
  #readRun(run: StoredRun, at: number, rest: Uint8Array, waits: Promise<void>[]): number {
    const length = Math.min(run.length, rest.length);
    const part = rest.subarray(0, length);
    if (run.kind === "zero") {
      const wait = run.allocated ? undefined : this.#readBehind(at, part);
      if (run.allocated) part.fill(0);
      if (isPromise(wait)) waits.push(wait);
    } else {
      const wait = run.kind === "data" ? run.storage.read(run.at, part) : unpackInto(run, part);
      if (isPromise(wait)) waits.push(wait);
    }
    return length;
  }

  #readBehind(at: number, into: Uint8Array): MaybePromise<void> {
    const { backing } = this.#disk;
    const backed = backing === undefined ? 0 : Math.min(into.length, Math.max(0, backing.size - at));
    into.fill(0, backed);
    return backed === 0 ? undefined : backing?.read(at, into.subarray(0, backed));
  }

  protected override async *doExtents(offset: number, length: number): AsyncIterable<BlockExtent> {
    const end = offset + length;
    let current: BlockExtent | undefined;
    for (let at = offset; at < end; ) {
      const found = this.#disk.locate(at);
      const run = isPromise(found) ? await found : found;
      const whole = extentOf(run, at, Math.min(run.length, end - at), this.name);
      at += whole.length;
      const isBehind = run.kind === "zero" && !run.allocated && this.#disk.backing !== undefined;
      for await (const next of isBehind
        ? backedExtents({ backing: this.#disk.backing }, whole)
        : splitAtHoles(run, whole)) {
        if (current !== undefined && continues(current, next)) {
          current = { ...current, length: current.length + next.length };
          continue;
        }
        if (current !== undefined) yield current;
        current = next;
      }
    }
    if (current !== undefined) yield current;
  }

  protected override doClose(): Promise<void> {
    return this.#disk.close();
  }

  // The base class refuses every change of a read-only device before it gets here.
  protected override doWrite(): never {
    throw new Error(`${this.name} is read-only`);
  }

  protected override doWriteZeroes(): never {
    throw new Error(`${this.name} is read-only`);
  }

  protected override doDiscard(): never {
    throw new Error(`${this.name} is read-only`);
  }

  protected override doFlush(): undefined {
    return undefined;
  }
}

function unpackInto(run: StoredRun & { kind: "packed" }, into: Uint8Array): MaybePromise<void> {
  const block = run.unpack();
  if (isPromise(block)) return block.then((bytes) => into.set(bytes.subarray(run.skip, run.skip + into.length)));
  into.set(block.subarray(run.skip, run.skip + into.length));
  return undefined;
}

function extentOf(run: StoredRun, offset: number, length: number, image: string): BlockExtent {
  const zero = run.kind === "zero";
  return {
    offset,
    length,
    kind: !zero ? "data" : run.allocated ? "zero" : "unallocated",
    hostOffset: run.kind === "data" ? run.at : undefined,
    compressed: run.kind === "packed",
    depth: 0,
    zero,
    ...(run.kind === "data" && run.storage.name !== image ? { file: run.storage.name } : {}),
  };
}

async function* splitAtHoles(run: StoredRun, extent: BlockExtent): AsyncGenerator<BlockExtent> {
  if (run.kind !== "data" || !run.flat) {
    yield extent;
    return;
  }
  for await (const part of run.storage.extents(run.at, extent.length)) {
    yield {
      ...extent,
      offset: extent.offset + part.offset - run.at,
      length: part.length,
      hostOffset: part.offset,
      zero: part.hole,
    };
  }
}

function continues(run: BlockExtent, next: BlockExtent): boolean {
  if (
    run.depth !== next.depth ||
    run.kind !== next.kind ||
    run.compressed !== next.compressed ||
    run.zero !== next.zero ||
    run.file !== next.file
  )
    return false;
  return run.hostOffset === undefined ? next.hostOffset === undefined : next.hostOffset === run.hostOffset + run.length;
}
