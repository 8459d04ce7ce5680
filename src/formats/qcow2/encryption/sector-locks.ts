import { alignDown, alignUp } from "../../../base/integers.js";
import { isPromise, type MaybePromise } from "../../../base/maybe-promise.js";
import { CIPHER_SECTOR_BYTES } from "../../../codec/cipher/sector-cipher.js";

interface Writing {
  readonly start: number;
  readonly end: number;
  readonly partial: boolean;
  readonly done: Promise<void>;
}

/**
 * Writes under way, so that of a sector written in part nobody loses the other part: such a write waits for every other write of
 * its sectors, and they and reads wait for it. Writes of whole sectors do not wait for each other.
 */
export class SectorLocks {
  readonly #writing = new Set<Writing>();
  #partial = 0;

  /** What a read of the range has to wait for. Wait, then ask again. */
  partialWrite(at: number, length: number): Promise<void> | undefined {
    return this.#partial === 0 ? undefined : this.#find(at, length, true);
  }

  /** What a write has to wait for. Wait, then ask again. */
  conflict(at: number, length: number, partial: boolean): Promise<void> | undefined {
    if (this.#writing.size === 0 || (!partial && this.#partial === 0)) return undefined;
    return this.#find(at, length, !partial);
  }

  /** Remembers `work` on the range until it is over; returns it. */
  follow(at: number, length: number, partial: boolean, work: MaybePromise<void>): MaybePromise<void> {
    if (!isPromise(work)) return work;
    const start = alignDown(at, CIPHER_SECTOR_BYTES);
    const end = alignUp(at + length, CIPHER_SECTOR_BYTES);
    const over = (): void => {
      this.#writing.delete(writing);
      if (partial) this.#partial -= 1;
    };
    const writing = { start, end, partial, done: work.then(over, over) };
    this.#writing.add(writing);
    if (partial) this.#partial += 1;
    return work;
  }

  #find(at: number, length: number, partialOnly: boolean): Promise<void> | undefined {
    for (const writing of this.#writing) {
      if (partialOnly && !writing.partial) continue;
      if (writing.start < alignUp(at + length, CIPHER_SECTOR_BYTES) && at < writing.end) return writing.done;
    }
    return undefined;
  }
}
