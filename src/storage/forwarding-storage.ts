import type { MaybePromise } from "../base/maybe-promise.js";
import type { StorageDebug } from "./debug/events.js";
import type { Storage, StorageCapabilities, StorageExtent } from "./storage.js";

/** Passes every call on; wrappers override the calls they care about. Closing it closes the inner storage. */
export class ForwardingStorage implements Storage {
  readonly name: string;
  readonly capabilities: StorageCapabilities;
  protected readonly inner: Storage;

  constructor(inner: Storage, capabilities: StorageCapabilities = inner.capabilities) {
    this.inner = inner;
    this.name = inner.name;
    this.capabilities = capabilities;
  }

  get debug(): StorageDebug | undefined {
    return this.inner.debug;
  }

  size(): number {
    return this.inner.size();
  }

  read(at: number, into: Uint8Array): MaybePromise<void> {
    return this.inner.read(at, into);
  }

  write(at: number, from: Uint8Array): MaybePromise<void> {
    return this.inner.write(at, from);
  }

  writeZeroes(at: number, length: number, options?: { readonly unmap?: boolean }): MaybePromise<void> {
    return this.inner.writeZeroes(at, length, options);
  }

  discard(at: number, length: number): MaybePromise<void> {
    return this.inner.discard(at, length);
  }

  flush(): MaybePromise<void> {
    return this.inner.flush();
  }

  truncate(size: number): MaybePromise<void> {
    return this.inner.truncate(size);
  }

  extents(at: number, length: number): AsyncIterable<StorageExtent> {
    return this.inner.extents(at, length);
  }

  allocatedSize(): number | undefined {
    return this.inner.allocatedSize();
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}
