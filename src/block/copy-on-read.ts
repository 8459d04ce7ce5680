import { ZcowError } from "../base/errors.js";
import { alignDown, alignUp } from "../base/integers.js";
import type { MaybePromise } from "../base/maybe-promise.js";
import { MiB } from "../base/units.js";
import { BaseBlockDevice } from "./base-device.js";
import type { BlockDevice, BlockExtent, WriteZeroesOptions } from "./block-device.js";

/** Most that is copied in one piece, in bytes. */
const PIECE = MiB;

/** A disk that keeps what is read from behind it. Requests take turns where copies are made, so that no copy undoes a write. */
class CopyOnReadDevice extends BaseBlockDevice {
  readonly #inner: BlockDevice;
  readonly #unit: number;
  #last: Promise<unknown> = Promise.resolve();

  constructor(inner: BlockDevice) {
    super(inner);
    this.#inner = inner;
    this.#unit = Math.min(PIECE, inner.limits.optimalAlignment);
  }

  /** In turn: a copy that is under way holds what was there before. */
  #inTurn(work: () => MaybePromise<void>): Promise<void> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => undefined);
    return turn;
  }

  protected doRead(offset: number, into: Uint8Array): MaybePromise<void> {
    return this.#inTurn(async () => {
      await this.#keep(offset, into.length);
      await this.#inner.read(offset, into);
    });
  }

  async #keep(offset: number, length: number): Promise<void> {
    const end = Math.min(this.size, alignUp(offset + length, this.#unit));
    const missing: { offset: number; length: number }[] = [];
    for await (const extent of this.#inner.extents(
      alignDown(offset, this.#unit),
      end - alignDown(offset, this.#unit),
    )) {
      if (extent.kind !== "unallocated" && extent.depth === 0) continue;
      const before = missing.at(-1);
      if (before !== undefined && before.offset + before.length === extent.offset) before.length += extent.length;
      else missing.push({ offset: extent.offset, length: extent.length });
    }
    for (const extent of missing) {
      for (let at = extent.offset; at < extent.offset + extent.length; at += PIECE) {
        await this.#copy(at, Math.min(PIECE, extent.offset + extent.length - at));
      }
    }
  }

  async #copy(offset: number, length: number): Promise<void> {
    const bytes = new Uint8Array(length);
    await this.#inner.read(offset, bytes);
    if (bytes.every((byte) => byte === 0)) await this.#inner.writeZeroes(offset, length, { unmap: false });
    else await this.#inner.write(offset, bytes);
  }

  protected doWrite(offset: number, from: Uint8Array): MaybePromise<void> {
    return this.#inTurn(() => this.#inner.write(offset, from));
  }

  protected override doWriteCompressed(offset: number, from: Uint8Array): MaybePromise<void> {
    return this.#inTurn(() => this.#inner.writeCompressed(offset, from));
  }

  protected doWriteZeroes(offset: number, length: number, unmap: boolean): MaybePromise<void> {
    const options: WriteZeroesOptions = { unmap };
    return this.#inTurn(() => this.#inner.writeZeroes(offset, length, options));
  }

  protected doDiscard(offset: number, length: number): MaybePromise<void> {
    return this.#inTurn(() => this.#inner.discard(offset, length));
  }

  protected doFlush(): MaybePromise<void> {
    return this.#inner.flush();
  }

  protected doExtents(offset: number, length: number): AsyncIterable<BlockExtent> {
    return this.#inner.extents(offset, length);
  }

  protected doClose(): Promise<void> {
    return this.#inner.close();
  }
}

/**
 * `inner`, which keeps a copy of everything that is read and not in it yet, and so depends on its backing image less and less. Closing
 * it closes `inner`. Fails with `READ_ONLY` where nothing can be kept, `NOT_SUPPORTED` for zoned disks.
 */
export function copyOnRead(inner: BlockDevice): BlockDevice {
  if (inner.readOnly) {
    throw new ZcowError("READ_ONLY", `${inner.name} is open for reading only: it cannot keep what is read`, {
      data: { path: inner.name },
      stockText: "Can't use copy-on-read on read-only device",
    });
  }
  if (inner.limits.zoned !== undefined) {
    throw new ZcowError("NOT_SUPPORTED", `${inner.name} is zoned: data cannot be written where they are read`, {
      data: { path: inner.name },
    });
  }
  return new CopyOnReadDevice(inner);
}
