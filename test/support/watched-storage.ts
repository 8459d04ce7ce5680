import type { MaybePromise } from "../../src/base/maybe-promise.js";
import { ForwardingStorage } from "../../src/storage/forwarding-storage.js";

/** Calls back before and after every call that changes the storage or flushes it: what a process that is killed then leaves. */
export class WatchedStorage extends ForwardingStorage {
  onChange: () => void = () => undefined;

  override write(at: number, from: Uint8Array): MaybePromise<void> {
    return this.#around(() => super.write(at, from));
  }

  override writeZeroes(at: number, length: number, options?: { readonly unmap?: boolean }): MaybePromise<void> {
    return this.#around(() => super.writeZeroes(at, length, options));
  }

  override discard(at: number, length: number): MaybePromise<void> {
    return this.#around(() => super.discard(at, length));
  }

  override flush(): MaybePromise<void> {
    return this.#around(() => super.flush());
  }

  override truncate(size: number): MaybePromise<void> {
    return this.#around(() => super.truncate(size));
  }

  #around(call: () => MaybePromise<void>): MaybePromise<void> {
    this.onChange();
    const wait = call();
    this.onChange();
    return wait;
  }
}
