import type { MaybePromise } from "../../src/base/maybe-promise.js";
import type { Storage, StorageCapabilities, StorageExtent } from "../../src/storage/storage.js";
import type { Random } from "./random.js";

/**
 * Makes a synchronous storage answer late and out of order, as a busy disk does: calls that overlap in time reach the
 * storage below in a random order. Nothing else changes. Some calls still complete at once.
 */
export class JitteryStorage implements Storage {
  readonly name: string;
  readonly capabilities: StorageCapabilities;
  readonly #inner: Storage;
  readonly #random: Random;
  readonly #open = new Set<Promise<void>>();

  constructor(inner: Storage, random: Random) {
    this.#inner = inner;
    this.#random = random;
    this.name = inner.name;
    this.capabilities = Object.freeze({ ...inner.capabilities, synchronous: false });
  }

  size(): number {
    return this.#inner.size();
  }

  read(at: number, into: Uint8Array): MaybePromise<void> {
    return this.#late(() => this.#inner.read(at, into));
  }

  /** The caller must not change `from` before the answer; a copy taken now would hide that it did. */
  write(at: number, from: Uint8Array): MaybePromise<void> {
    return this.#late(() => this.#inner.write(at, from));
  }

  writeZeroes(at: number, length: number, options?: { readonly unmap?: boolean }): MaybePromise<void> {
    return this.#late(() => this.#inner.writeZeroes(at, length, options));
  }

  discard(at: number, length: number): MaybePromise<void> {
    return this.#late(() => this.#inner.discard(at, length));
  }

  flush(): MaybePromise<void> {
    return this.#late(() => this.#inner.flush());
  }

  truncate(size: number): MaybePromise<void> {
    return this.#late(() => this.#inner.truncate(size));
  }

  extents(at: number, length: number): AsyncIterable<StorageExtent> {
    return this.#inner.extents(at, length);
  }

  allocatedSize(): number | undefined {
    return this.#inner.allocatedSize();
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#open);
    await this.#inner.close();
  }

  #late(act: () => MaybePromise<void>): MaybePromise<void> {
    if (this.#random.chance(0.25)) return act();
    const work = this.#lateWork(act);
    this.#open.add(work);
    const end = (): void => {
      this.#open.delete(work);
    };
    work.then(end, end);
    return work;
  }

  async #lateWork(act: () => MaybePromise<void>): Promise<void> {
    await pause(this.#random);
    await act();
    await pause(this.#random);
  }
}

/** As long as a busy disk takes: no time, some turns of the microtask queue, or one of the event loop. */
export async function pause(random: Random): Promise<void> {
  const turns = random.weighted({ none: 3, microtask: 4, few: 2, turn: 1 });
  if (turns === "turn") return new Promise((resolve) => setImmediate(resolve));
  const count = turns === "none" ? 0 : turns === "microtask" ? 1 : random.between(2, 12);
  for (let i = 0; i < count; i++) await Promise.resolve();
}
