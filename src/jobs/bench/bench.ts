import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { MiB } from "../../base/units.js";
import type { BlockDevice } from "../../block/block-device.js";
import { alignedBuffer } from "../../host/direct-io.js";

/** Bytes of buffers at most; requests that would need more share one. */
const MAX_BUFFER_BYTES = 64 * MiB;

/** A row of equal requests. */
export interface BenchOptions {
  readonly kind: "read" | "write";
  /** Requests in all. */
  readonly count: number;
  /** Requests in flight, at least 1. */
  readonly depth: number;
  /** Bytes per request. */
  readonly bytes: number;
  /** Bytes from the start of one request to that of the next, modulo the disk. */
  readonly step: number;
  /** Where the first one starts. */
  readonly offset: number;
  /** Byte that is written. Default 0. */
  readonly pattern?: number;
  /** Flush after so many writes; 0 or left out: not. At least `depth`. */
  readonly flushInterval?: number;
  /** Do not wait for what is in flight before a flush. Default false. */
  readonly noDrain?: boolean;
  /** Every write is durable before it counts as done. Default false. */
  readonly writeThrough?: boolean;
}

/** Sends the requests and tells how long they took, in milliseconds. Fails with the first that failed, when none is in flight any more. */
export async function benchDisk(device: BlockDevice, options: BenchOptions): Promise<number> {
  const row = new RequestRow(device, options);
  const started = performance.now();
  await row.run();
  return performance.now() - started;
}

class RequestRow {
  readonly #device: BlockDevice;
  readonly #options: BenchOptions;
  readonly #buffers: readonly Uint8Array[];
  #offset: number;
  #left: number;
  #sinceFlush = 0;
  #failure: { readonly error: unknown } | undefined;
  /** A flush that requests have to wait for. */
  #flushing: Promise<void> | undefined;

  constructor(device: BlockDevice, options: BenchOptions) {
    this.#device = device;
    this.#options = options;
    this.#offset = options.offset;
    this.#left = options.count;
    this.#buffers = buffersFor(options);
  }

  async run(): Promise<void> {
    const { flushInterval = 0, noDrain = false } = this.#options;
    while (this.#left > 0 && this.#failure === undefined) {
      const round = flushInterval === 0 || noDrain ? this.#left : Math.min(this.#left, flushInterval);
      await this.#round(round);
      // With requests in flight flushes are sent between them; otherwise here, when nothing is.
      if (flushInterval > 0 && !noDrain && round === flushInterval) await this.#device.flush();
    }
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  /** Sends `count` requests, and waits for them. */
  async #round(count: number): Promise<void> {
    let left = count;
    const worker = async (slot: number): Promise<void> => {
      while (left > 0 && this.#failure === undefined) {
        left -= 1;
        this.#left -= 1;
        try {
          const wait = this.#send(slot);
          if (isPromise(wait)) await wait;
        } catch (error) {
          this.#failure ??= { error };
        }
      }
    };
    await Promise.all(Array.from({ length: Math.min(this.#options.depth, count) }, (_, slot) => worker(slot)));
    await this.#flushing;
  }

  #send(slot: number): MaybePromise<void> {
    const { kind, step, writeThrough = false } = this.#options;
    const buffer = this.#buffers[slot % this.#buffers.length] as Uint8Array;
    const at = this.#offset;
    this.#offset += step;
    if (this.#device.size > 0) this.#offset %= this.#device.size;
    if (kind === "read") return this.#device.read(at, buffer);
    const written = this.#device.write(at, buffer, { fua: writeThrough });
    this.#flushBetween();
    return written;
  }

  #flushBetween(): void {
    const { flushInterval = 0, noDrain = false } = this.#options;
    if (flushInterval === 0 || !noDrain) return;
    this.#sinceFlush += 1;
    if (this.#sinceFlush < flushInterval) return;
    this.#sinceFlush = 0;
    const flushed = this.#device.flush();
    if (!isPromise(flushed)) return;
    this.#flushing = Promise.all([this.#flushing, flushed]).then(
      () => undefined,
      (error: unknown) => {
        this.#failure ??= { error };
      },
    );
  }
}

/** Page-aligned, for transfers past the page cache. */
function buffersFor({ bytes, depth, pattern = 0 }: BenchOptions): Uint8Array[] {
  const count = Math.max(1, Math.min(depth, Math.floor(MAX_BUFFER_BYTES / Math.max(bytes, 1))));
  const memory = alignedBuffer(Math.max(1, count * bytes)).fill(pattern);
  return Array.from({ length: count }, (_, index) => memory.subarray(index * bytes, (index + 1) * bytes));
}
