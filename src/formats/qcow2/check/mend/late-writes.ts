import { isPromise } from "../../../../base/maybe-promise.js";
import { MiB } from "../../../../base/units.js";
import type { Storage } from "../../../../storage/storage.js";

/** Bytes of tables that wait in memory. */
const PENDING_BYTES = 8 * MiB;

/**
 * Changes of tables in their places. They wait until everything they point to, written elsewhere at once, is durable. Each entry is
 * right by itself, before and after, so it does not matter which of them a crash lets through.
 */
export class LateWrites {
  readonly #storage: Storage;
  readonly #waiting: { readonly offset: number; readonly bytes: Uint8Array }[] = [];
  #bytes = 0;

  constructor(storage: Storage) {
    this.#storage = storage;
  }

  /** Takes over `bytes`, for the file at `offset`. */
  async add(offset: number, bytes: Uint8Array): Promise<void> {
    this.#waiting.push({ offset, bytes });
    this.#bytes += bytes.length;
    if (this.#bytes > PENDING_BYTES) await this.settle();
  }

  /** Writes what waits; all of it is durable afterwards. */
  async settle(): Promise<void> {
    await this.#flush();
    for (const { offset, bytes } of this.#waiting.splice(0)) {
      const wait = this.#storage.write(offset, bytes);
      if (isPromise(wait)) await wait;
    }
    this.#bytes = 0;
    await this.#flush();
  }

  async #flush(): Promise<void> {
    const wait = this.#storage.flush();
    if (isPromise(wait)) await wait;
  }
}
