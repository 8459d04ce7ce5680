import type { MaybePromise } from "../../base/maybe-promise.js";
import type { Storage } from "../../storage/storage.js";
import type { Qcow2Header } from "./header.js";
import { replaceHeader } from "./header-replace.js";

/**
 * The header in memory and in the file. Changes are made one after the other; each leaves the old or the new one after a crash.
 *
 * After a failed change nobody knows which header the file holds. Until it is written again nothing that relies on
 * the header may be written: `restore` is the first step of every write-back.
 */
export class ImageHeader {
  #current: Qcow2Header;
  #uncertain = false;
  #last: Promise<void> = Promise.resolve();
  readonly #storage: Storage;

  readonly #barrier: () => MaybePromise<void>;

  constructor(storage: Storage, header: Qcow2Header, barrier: () => MaybePromise<void>) {
    this.#storage = storage;
    this.#barrier = barrier;
    this.#current = header;
  }

  get current(): Qcow2Header {
    return this.#current;
  }

  get isUncertain(): boolean {
    return this.#uncertain;
  }

  /** Durable when it resolves. On failure the header in memory stays as it was. */
  update(change: (header: Qcow2Header) => Qcow2Header): Promise<void> {
    return this.#inTurn(async () => {
      const header = change(this.#current);
      await this.#put(header);
      this.#current = header;
    });
  }

  /** Makes the file hold the header in memory, when an earlier change failed. */
  restore(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#uncertain) await this.#put(this.#current);
    });
  }

  async #put(header: Qcow2Header): Promise<void> {
    this.#uncertain = true;
    await replaceHeader(this.#storage, header, this.#barrier);
    this.#uncertain = false;
  }

  #inTurn(step: () => Promise<void>): Promise<void> {
    const turn = this.#last.then(step);
    this.#last = turn.catch(() => undefined);
    return turn;
  }
}
