import { setTimeout as delay } from "node:timers/promises";
import { isPromise } from "../../base/maybe-promise.js";
import { MiB } from "../../base/units.js";
import type { BlockDevice } from "../../block/block-device.js";
import { BufferPool } from "../convert/buffer-pool.js";
import type { CommittedRun } from "./committed-runs.js";

/** Bytes that are read at once, and how many such pieces are in flight. */
const PIECE_BYTES = MiB;
const PIECES = 4;

/** How fast it may go, and who is told how far it went. */
export interface Pace {
  /** Bytes per second; 0 or left out: no limit. */
  readonly rate?: number | undefined;
  /** Called with the bytes that were done since the last call. */
  readonly onBytes: (count: number) => void;
}

/** Copies data from one disk to the same place of another, several pieces at once or, for disks that need it, one by one. */
export class RunCopier {
  readonly #from: BlockDevice;
  readonly #to: BlockDevice;
  readonly #pace: Pace;
  readonly #buffers: BufferPool;
  readonly #started = performance.now();
  #copied = 0;
  #failure: { readonly error: unknown } | undefined;

  /** `pieces`: 1 keeps the order of writes. */
  constructor(from: BlockDevice, to: BlockDevice, pace: Pace, pieces = PIECES) {
    this.#from = from;
    this.#to = to;
    this.#pace = pace;
    this.#buffers = new BufferPool(pieces, PIECE_BYTES);
  }

  /** Begins to copy a run; its end is waited for by `settled`. Fails with what an earlier piece failed with. */
  async copy({ offset, length, zero }: CommittedRun): Promise<void> {
    if (zero) {
      const wait = this.#to.writeZeroes(offset, length);
      if (isPromise(wait)) await wait;
      this.#pace.onBytes(length);
      return;
    }
    for (let at = offset; at < offset + length; ) {
      if (this.#failure !== undefined) throw this.#failure.error;
      const count = Math.min(PIECE_BYTES - (at % PIECE_BYTES), offset + length - at);
      const buffer = this.#buffers.takeNow() ?? (await this.#buffers.take());
      if (this.#failure === undefined) void this.#move(at, buffer, count);
      else this.#buffers.give(buffer);
      at += count;
      await this.#keepPace(count);
    }
  }

  /** Waits for all that was begun. */
  async settled(): Promise<void> {
    await this.#buffers.allBack();
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async #move(at: number, buffer: Uint8Array, count: number): Promise<void> {
    const bytes = buffer.subarray(0, count);
    try {
      const read = this.#from.read(at, bytes);
      if (isPromise(read)) await read;
      const written = this.#to.write(at, bytes);
      if (isPromise(written)) await written;
    } catch (error) {
      this.#failure ??= { error };
    } finally {
      this.#buffers.give(buffer);
      this.#pace.onBytes(count);
    }
  }

  async #keepPace(count: number): Promise<void> {
    const { rate = 0 } = this.#pace;
    this.#copied += count;
    if (rate === 0) return;
    const due = (this.#copied / rate) * 1000;
    const wait = due - (performance.now() - this.#started);
    if (wait > 0) await delay(wait);
  }
}
