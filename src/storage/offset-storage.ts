import { ZcowError } from "../base/errors.js";
import type { MaybePromise } from "../base/maybe-promise.js";
import { ForwardingStorage } from "./forwarding-storage.js";
import type { Storage, StorageExtent } from "./storage.js";
import { rangeError } from "./storage-error.js";

class OffsetStorage extends ForwardingStorage {
  readonly #offset: number;
  /** Fixed length in bytes; undefined when the window ends where the inner storage ends. */
  readonly #length: number | undefined;

  constructor(inner: Storage, offset: number, length: number | undefined) {
    super(
      inner,
      length === undefined ? inner.capabilities : Object.freeze({ ...inner.capabilities, resizable: false }),
    );
    this.#offset = offset;
    this.#length = length;
  }

  override size(): number {
    return this.#length ?? Math.max(0, this.inner.size() - this.#offset);
  }

  override read(at: number, into: Uint8Array): MaybePromise<void> {
    const refusal = this.#refuse(at, into.length);
    if (refusal !== undefined) return refusal;
    const inside = this.#inside(at, into.length);
    if (inside === into.length) return this.inner.read(this.#offset + at, into);
    into.fill(0, inside);
    return this.inner.read(this.#offset + at, into.subarray(0, inside));
  }

  override write(at: number, from: Uint8Array): MaybePromise<void> {
    return this.#refuseGrowth(at, from.length) ?? this.inner.write(this.#offset + at, from);
  }

  override writeZeroes(at: number, length: number, options?: { readonly unmap?: boolean }): MaybePromise<void> {
    return this.#refuseGrowth(at, length) ?? this.inner.writeZeroes(this.#offset + at, length, options);
  }

  override discard(at: number, length: number): MaybePromise<void> {
    return this.#refuse(at, length) ?? this.inner.discard(this.#offset + at, this.#inside(at, length));
  }

  override truncate(size: number): MaybePromise<void> {
    if (this.#length === undefined) return this.#refuse(size, 0) ?? this.inner.truncate(this.#offset + size);
    return Promise.reject(
      new ZcowError(
        "STORAGE_UNSUPPORTED",
        `a window of ${this.#length} bytes on ${this.name} cannot change its size to ${size}`,
        {
          data: { path: this.name, value: size, limit: this.#length },
          stockText: "Cannot resize fixed-size raw disks",
        },
      ),
    );
  }

  override async *extents(at: number, length: number): AsyncGenerator<StorageExtent> {
    const refusal = this.#refuse(at, length);
    if (refusal !== undefined) await refusal;
    const inside = this.#inside(at, length);
    let held: StorageExtent | undefined;
    for await (const run of this.inner.extents(this.#offset + at, inside)) {
      if (held !== undefined) yield held;
      const { offset, hostOffset = offset } = run;
      held = { offset: offset - this.#offset, length: run.length, hole: run.hole, hostOffset };
    }
    const outside = length - inside;
    if (outside > 0 && held?.hole === true) {
      yield { ...held, length: held.length + outside };
      return;
    }
    if (held !== undefined) yield held;
    if (outside > 0) yield { offset: at + inside, length: outside, hole: true };
  }

  /** How much of the range lies before the fixed end; all of it when there is none. */
  #inside(at: number, length: number): number {
    return this.#length === undefined ? length : Math.min(Math.max(this.#length - at, 0), length);
  }

  #refuse(at: number, length: number): Promise<void> | undefined {
    const error = rangeError(this.name, at, length) ?? rangeError(this.name, this.#offset + at, length);
    return error === undefined ? undefined : Promise.reject(error);
  }

  #refuseGrowth(at: number, length: number): Promise<void> | undefined {
    if (this.#inside(at, length) === length) return this.#refuse(at, length);
    return Promise.reject(
      new ZcowError(
        "NO_SPACE",
        `cannot write ${length} bytes at offset ${at}: the window on ${this.name} ends at ${this.#length}`,
        {
          data: { path: this.name, offset: at, length, limit: this.#length ?? 0 },
        },
      ),
    );
  }
}

/**
 * A window on `inner` that starts at its byte `offset`. With `length` the window has that fixed size in bytes; otherwise it
 * reaches to the end of `inner` and can grow with it; its allocated size is that of all of `inner`. Closing it closes `inner`.
 *
 * Errors: `INVALID_ARGUMENT` for an offset or length that is no range.
 */
export function offsetStorage(inner: Storage, offset: number, length?: number): Storage {
  const error = rangeError(inner.name, offset, length ?? 0);
  if (error !== undefined) throw error;
  return new OffsetStorage(inner, offset, length);
}
