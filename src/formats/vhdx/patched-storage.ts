import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { ForwardingStorage } from "../../storage/forwarding-storage.js";
import type { Storage } from "../../storage/storage.js";

/** Bytes of a file that are different from what is in it. */
export interface Patch {
  readonly at: number;
  readonly length: number;
  /** Undefined: zeros. */
  readonly bytes: Uint8Array | undefined;
}

/** A storage as it would be after `patches` were written in their order. For reading only. */
export class PatchedStorage extends ForwardingStorage {
  readonly #patches: readonly Patch[];
  readonly #size: number;

  constructor(inner: Storage, patches: readonly Patch[], size: number) {
    super(inner, Object.freeze({ ...inner.capabilities, writable: false }));
    this.#patches = patches;
    this.#size = size;
  }

  override size(): number {
    return this.#size;
  }

  override read(at: number, into: Uint8Array): MaybePromise<void> {
    const wait = this.inner.read(at, into);
    if (isPromise(wait)) return wait.then(() => this.#patch(at, into));
    this.#patch(at, into);
    return undefined;
  }

  #patch(at: number, into: Uint8Array): void {
    for (const patch of this.#patches) {
      const start = Math.max(at, patch.at);
      const end = Math.min(at + into.length, patch.at + patch.length);
      if (start >= end) continue;
      if (patch.bytes === undefined) into.fill(0, start - at, end - at);
      else into.set(patch.bytes.subarray(start - patch.at, end - patch.at), start - at);
    }
  }
}
