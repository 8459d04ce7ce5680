import type { MaybePromise } from "../base/maybe-promise.js";
import { ForwardingStorage } from "./forwarding-storage.js";
import type { Storage } from "./storage.js";
import type { StorageCall } from "./storage-call.js";

/** A finished call. */
export interface StorageTrace extends StorageCall {
  /** It was done when it returned. */
  readonly synchronous: boolean;
  readonly milliseconds: number;
  /** Why it failed. */
  readonly error?: unknown;
}

/** Receives one trace per call of the traced storage, when the call has ended. */
export type TraceSink = (trace: StorageTrace) => void;

class TracingStorage extends ForwardingStorage {
  readonly #sink: TraceSink;

  constructor(inner: Storage, sink: TraceSink) {
    super(inner);
    this.#sink = sink;
  }

  override read(at: number, into: Uint8Array): MaybePromise<void> {
    return this.#watch({ kind: "read", at, length: into.length }, () => this.inner.read(at, into));
  }

  override write(at: number, from: Uint8Array): MaybePromise<void> {
    return this.#watch({ kind: "write", at, length: from.length }, () => this.inner.write(at, from));
  }

  override writeZeroes(at: number, length: number, options?: { readonly unmap?: boolean }): MaybePromise<void> {
    return this.#watch({ kind: "writeZeroes", at, length }, () => this.inner.writeZeroes(at, length, options));
  }

  override discard(at: number, length: number): MaybePromise<void> {
    return this.#watch({ kind: "discard", at, length }, () => this.inner.discard(at, length));
  }

  override flush(): MaybePromise<void> {
    return this.#watch({ kind: "flush", at: 0, length: 0 }, () => this.inner.flush());
  }

  override truncate(size: number): MaybePromise<void> {
    return this.#watch({ kind: "truncate", at: 0, length: size }, () => this.inner.truncate(size));
  }

  #watch(call: StorageCall, make: () => MaybePromise<void>): MaybePromise<void> {
    const started = performance.now();
    const wait = make();
    if (wait !== undefined) return this.#watchLater(call, started, wait);
    this.#sink({ ...call, synchronous: true, milliseconds: performance.now() - started });
    return undefined;
  }

  async #watchLater(call: StorageCall, started: number, wait: Promise<void>): Promise<void> {
    try {
      await wait;
    } catch (error) {
      this.#sink({ ...call, synchronous: false, milliseconds: performance.now() - started, error });
      throw error;
    }
    this.#sink({ ...call, synchronous: false, milliseconds: performance.now() - started });
  }
}

/** Tells `sink` of every call of `inner` when it is finished, in the order in which calls finish. */
export function tracingStorage(inner: Storage, sink: TraceSink): Storage {
  return new TracingStorage(inner, sink);
}
