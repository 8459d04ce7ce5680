import { ZcowError } from "../base/errors.js";
import { isAligned } from "../base/integers.js";
import { isPromise, type MaybePromise } from "../base/maybe-promise.js";
import { SECTOR_SIZE } from "../base/units.js";
import type { BlockDevice, BlockExtent, BlockLimits, WriteOptions, WriteZeroesOptions } from "./block-device.js";

/** What a driver tells about its device when it constructs one. */
export interface BlockDeviceDescription {
  readonly format: string;
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  readonly readOnly: boolean;
  readonly limits: BlockLimits;
  /** Reads may be finer than `limits.requestAlignment`: multiples of this many bytes. Default: the same. */
  readonly readAlignment?: number;
}

/**
 * The part of a {@link BlockDevice} that is the same in every format: each public method checks its
 * arguments once and then calls one hook, which may rely on them.
 *
 * Guarantees to the hooks: the range lies inside the disk and is aligned to `limits.requestAlignment` (reads: `readAlignment`),
 * the length is not zero, the device is open, and for changing calls it is writable. A hook that
 * finishes synchronously returns `undefined` and costs no promise. Refusals are thrown, not returned, so a
 * caller that does not `await` sees them too.
 */
export abstract class BaseBlockDevice implements BlockDevice {
  readonly format: string;
  readonly name: string;
  readonly readOnly: boolean;
  readonly limits: BlockLimits;

  #size: number;
  #open = true;
  readonly #alignment: number;
  readonly #readAlignment: number;
  #inFlight = 0;
  #idle: (() => void) | undefined;
  #closing: Promise<void> | undefined;
  #lastGrown: Promise<void> | undefined;

  protected constructor(description: BlockDeviceDescription) {
    this.format = description.format;
    this.name = description.name;
    this.#size = description.size;
    this.readOnly = description.readOnly;
    this.limits = description.limits;
    this.#alignment = description.limits.requestAlignment;
    this.#readAlignment = description.readAlignment ?? this.#alignment;
  }

  get size(): number {
    return this.#size;
  }

  /** `grow` of the contract, for drivers that have it: `step` makes the disk `size` bytes long, which is more than it has. */
  protected growBy(size: number, step: (size: number) => Promise<void>): Promise<void> {
    this.assertOpen("grow");
    this.assertWritable("grow");
    const turn = (this.#lastGrown ?? Promise.resolve()).then(async () => {
      if (size === this.#size) return;
      this.#assertLarger(size);
      await step(size);
      this.#size = size;
    });
    this.#lastGrown = turn.catch(() => undefined);
    return this.track(turn);
  }

  #assertLarger(size: number): void {
    const data = { path: this.name, value: size, limit: this.#size };
    if (!Number.isSafeInteger(size)) {
      const text = `${this.name}: a size of ${size} bytes is no whole number up to 2^53-1`;
      throw new ZcowError("INVALID_ARGUMENT", text, { data: { ...data, limit: Number.MAX_SAFE_INTEGER } });
    }
    if (size < this.#size) {
      const text = `${this.name}: ${size} bytes are less than the ${this.#size} that the disk has, and it is in use`;
      throw new ZcowError("SHRINK_NOT_ALLOWED", text, { data });
    }
    const unit = Math.max(SECTOR_SIZE, this.#alignment);
    if (isAligned(size, unit)) return;
    const text = `${this.name}: a size of ${size} bytes is no multiple of ${unit}`;
    throw new ZcowError("MISALIGNED", text, { data: { ...data, limit: unit } });
  }

  read(offset: number, into: Uint8Array): MaybePromise<void> {
    const length = this.assertBytes("read", into);
    this.assertRequest("read", offset, length, this.#readAlignment);
    if (length === 0) return undefined;
    const wait = this.doRead(offset, into);
    return wait === undefined ? undefined : this.track(wait);
  }

  write(offset: number, from: Uint8Array, options?: WriteOptions): MaybePromise<void> {
    const length = this.assertBytes("write", from);
    this.assertRequest("write", offset, length);
    this.assertWritable("write");
    if (length === 0) return undefined;
    let wait = this.doWrite(offset, from);
    if (options?.fua === true) wait = this.#thenFlush(wait);
    return wait === undefined ? undefined : this.track(wait);
  }

  writeCompressed(offset: number, from: Uint8Array): MaybePromise<void> {
    const length = this.assertBytes("compressed write", from);
    this.assertRequest("compressed write", offset, length);
    this.assertWritable("compressed write");
    if (length === 0) return undefined;
    const wait = this.doWriteCompressed(offset, from);
    return wait === undefined ? undefined : this.track(wait);
  }

  writeZeroes(offset: number, length: number, options?: WriteZeroesOptions): MaybePromise<void> {
    this.assertRequest("write zeroes", offset, length);
    this.assertWritable("write zeroes");
    if (length === 0) return undefined;
    let wait = this.doWriteZeroes(offset, length, options?.unmap ?? true);
    if (options?.fua === true) wait = this.#thenFlush(wait);
    return wait === undefined ? undefined : this.track(wait);
  }

  discard(offset: number, length: number): MaybePromise<void> {
    this.assertRequest("discard", offset, length);
    this.assertWritable("discard");
    if (length === 0) return undefined;
    const wait = this.doDiscard(offset, length);
    return wait === undefined ? undefined : this.track(wait);
  }

  flush(): MaybePromise<void> {
    this.assertOpen("flush");
    if (this.readOnly) return undefined;
    const wait = this.doFlush();
    return wait === undefined ? undefined : this.track(wait);
  }

  async *extents(offset: number, length: number): AsyncIterable<BlockExtent> {
    this.assertRequest("map", offset, length);
    if (length === 0) return;
    for await (const extent of this.doExtents(offset, length)) {
      yield extent;
      this.assertOpen("map");
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#closeOnce();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Fills `into`. */
  protected abstract doRead(offset: number, into: Uint8Array): MaybePromise<void>;
  /** Writes all of `from`. */
  protected abstract doWrite(offset: number, from: Uint8Array): MaybePromise<void>;
  /** Writes all of `from`, compressed; has to judge the alignment. Formats without compression leave it as it is. */
  protected doWriteCompressed(_offset: number, _from: Uint8Array): MaybePromise<void> {
    throw new ZcowError("NOT_SUPPORTED", `${this.name}: the format ${this.format} has no compression`, {
      data: { path: this.name },
    });
  }
  /** Makes the range read as zeros; `unmap` allows giving its space back. */
  protected abstract doWriteZeroes(offset: number, length: number, unmap: boolean): MaybePromise<void>;
  /** Takes the hint that the range is not needed. */
  protected abstract doDiscard(offset: number, length: number): MaybePromise<void>;
  /** Not called on read-only devices. */
  protected abstract doFlush(): MaybePromise<void>;
  /** Runs covering exactly the range, in order. */
  protected abstract doExtents(offset: number, length: number): AsyncIterable<BlockExtent>;
  /** Called once, when nothing is in flight and, on writable devices, after a flush. Releases what the device holds. */
  protected abstract doClose(): Promise<void>;

  /**
   * Makes `close` wait for `work`. For operations that a driver adds to the contract;
   * the hooks above are tracked already.
   */
  protected track<T>(work: Promise<T>): Promise<T> {
    this.#inFlight += 1;
    work.then(this.#finished, this.#finished);
    return work;
  }

  /** Throws `CLOSED` after `close`. `operation` names the request in the message. */
  protected assertOpen(operation: string): void {
    if (!this.#open)
      throw new ZcowError("CLOSED", `${operation} on ${this.name}: the device is closed`, {
        data: { path: this.name },
      });
  }

  /** Throws `READ_ONLY` on a read-only device. `operation` names the request in the message. */
  protected assertWritable(operation: string): void {
    if (this.readOnly) {
      throw new ZcowError("READ_ONLY", `${operation} on ${this.name}: the device is read-only`, {
        data: { path: this.name },
      });
    }
  }

  /**
   * The length of a request's bytes. Throws `INVALID_ARGUMENT` for anything but an array of bytes: wider elements would be
   * counted wrong, and bytes that were transferred to another thread have a length of 0, so that a write of them would
   * be acknowledged and never made.
   */
  protected assertBytes(operation: string, bytes: Uint8Array): number {
    if (isByteArray(bytes) && (bytes.length > 0 || !isTransferred(bytes))) return bytes.length;
    throw new ZcowError(
      "INVALID_ARGUMENT",
      `${operation} on ${this.name}: the bytes must be a Uint8Array whose memory was not transferred away`,
      { data: { path: this.name } },
    );
  }

  /** Refuses a closed device, a range outside the disk, and a misaligned range, in this order. */
  protected assertRequest(operation: string, offset: number, length: number, alignment = this.#alignment): void {
    // NaN, fractions, negative and overflowing values all fail these comparisons: valid requests pay for nothing more.
    const numbers = typeof offset === "number" && typeof length === "number";
    const inside = numbers && offset >= 0 && length >= 0 && offset + length <= this.size;
    const aligned = inside && isAligned(offset, alignment) && isAligned(length, alignment);
    if (aligned && this.#open) return;
    this.assertOpen(operation);
    this.#refuse(operation, offset, length, alignment);
  }

  #refuse(operation: string, offset: number, length: number, alignment: number): never {
    const data = { path: this.name, offset, length };
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length)) {
      throw new ZcowError(
        "INVALID_ARGUMENT",
        `${operation} on ${this.name}: offset ${offset} and length ${length} must be integers`,
        { data },
      );
    }
    if (offset < 0 || length < 0 || offset + length > this.size) {
      throw new ZcowError(
        "OUT_OF_RANGE",
        `${operation} on ${this.name}: ${length} bytes at offset ${offset} do not fit a disk of ${this.size} bytes`,
        { data: { ...data, limit: this.size } },
      );
    }
    throw new ZcowError(
      "MISALIGNED",
      `${operation} on ${this.name}: offset ${offset} and length ${length} must be multiples of ${alignment} bytes`,
      { data: { ...data, limit: alignment } },
    );
  }

  #thenFlush(written: MaybePromise<void>): MaybePromise<void> {
    return isPromise(written) ? written.then(() => this.doFlush()) : this.doFlush();
  }

  readonly #finished = (): void => {
    this.#inFlight -= 1;
    if (this.#inFlight === 0) this.#idle?.();
  };

  async #closeOnce(): Promise<void> {
    this.#open = false;
    if (this.#inFlight > 0) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
    }
    try {
      if (!this.readOnly) await this.doFlush();
    } finally {
      await this.doClose();
    }
  }
}

/** Not by class: the bytes may come from another realm, as they do under some test runners. */
function isByteArray(value: unknown): value is Uint8Array {
  return ArrayBuffer.isView(value) && (value as Uint8Array).BYTES_PER_ELEMENT === 1;
}

/** Looked at for empty arrays only. Node 20 cannot be asked; it refuses to make a view. */
function isTransferred(bytes: Uint8Array): boolean {
  try {
    return new Uint8Array(bytes.buffer).length !== bytes.buffer.byteLength;
  } catch {
    return true;
  }
}
