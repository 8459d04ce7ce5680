import { isAligned } from "../base/integers.js";
import { KiB, MiB } from "../base/units.js";
import { AlignedBufferPool, DIRECT_ALIGNMENT } from "../host/direct-io.js";
import { directReadQueue, NOT_READ } from "../host/direct-read-queue.js";
import { fillInPool, readOnceInPool, writeInPool, writeOnceInPool } from "./file-transfer.js";
import type { FileTransfers } from "./file-transfers.js";
import { errnoOf } from "./storage-error.js";

/** Bytes moved at a time for callers whose own memory is not aligned. */
const BOUNCE_SIZE = 256 * KiB;
/** Bytes of them that are kept: as many small ones as the kernel's queue takes, or some large ones. */
const IDLE_BOUNCE_BYTES = 4 * MiB;

/**
 * Transfers that bypass the page cache: reads through the kernel's queue where there is one, the rest in the thread pool.
 *
 * Requests whose offset and length are multiples of `DIRECT_ALIGNMENT` go to the disk; others (small
 * metadata) go through the page cache of the same file, which the kernel keeps coherent: it writes dirty pages back
 * before a direct transfer of the same range and drops them after a direct write.
 */
export class DirectTransfers implements FileTransfers {
  readonly #direct: number;
  readonly #buffered: number;
  readonly #queue = directReadQueue();
  readonly #bounces = new AlignedBufferPool(IDLE_BOUNCE_BYTES);
  /** Alignment in bytes up to which the disk refused memory: what is not aligned better goes through a bounce buffer. */
  #refused = 0;

  /** `direct` was opened with `O_DIRECT`, `buffered` without; both on the same file. */
  constructor(direct: number, buffered: number) {
    this.#direct = direct;
    this.#buffered = buffered;
  }

  async read(at: number, into: Uint8Array): Promise<void> {
    if (!isDirect(at, into.length)) return fillInPool(this.#buffered, at, into, 0);
    const queued = await (this.#mustBounce(into)
      ? this.#queueBounced(at, into)
      : this.#queue?.read(this.#direct, at, into));
    if (queued === into.length) return;
    const done = queued === undefined || queued === NOT_READ ? await this.#readInPool(at, into) : queued;
    // Short: the file ends here, and not at a multiple of the alignment.
    if (done < into.length) await fillInPool(this.#buffered, at, into, done);
  }

  async write(at: number, from: Uint8Array): Promise<void> {
    if (!isDirect(at, from.length)) return writeInPool(this.#buffered, at, from);
    const done = await this.#withBounce(
      from,
      () => writeOnceInPool(this.#direct, at, from, 0),
      () => this.#writeBounced(at, from),
    );
    // Short: the rest tells why (no space, most likely), or is written after all.
    if (done < from.length) await writeInPool(this.#buffered, at, from, done);
  }

  /**
   * Tables are read into memory as it comes, requests mostly into aligned memory: one must not make the other go the long way.
   * Without the native helper addresses are unknown, and then one refusal holds for all memory.
   */
  #alignmentOf(memory: Uint8Array): number {
    return this.#queue?.alignmentOf(memory) ?? 1;
  }

  #mustBounce(memory: Uint8Array): boolean {
    return this.#refused > 0 && this.#alignmentOf(memory) <= this.#refused;
  }

  async #withBounce(
    memory: Uint8Array,
    straight: () => Promise<number>,
    bounced: () => Promise<number>,
  ): Promise<number> {
    if (this.#mustBounce(memory)) return bounced();
    try {
      return await straight();
    } catch (cause) {
      if (errnoOf(cause) !== "EINVAL") throw cause;
    }
    const done = await bounced();
    this.#refused = Math.max(this.#refused, this.#alignmentOf(memory));
    return done;
  }

  /** Through the kernel's queue as well, when one buffer holds it all: waiting in the thread pool costs several times the copy. */
  async #queueBounced(at: number, into: Uint8Array): Promise<number> {
    if (this.#queue === undefined || into.length > BOUNCE_SIZE) return NOT_READ;
    const bounce = this.#bounces.take(into.length);
    const piece = bounce.subarray(0, into.length);
    const count = await this.#queue.read(this.#direct, at, piece);
    if (count !== NOT_READ) into.set(count === piece.length ? piece : piece.subarray(0, count));
    this.#bounces.giveBack(bounce);
    return count;
  }

  #readInPool(at: number, into: Uint8Array): Promise<number> {
    return this.#withBounce(
      into,
      () => readOnceInPool(this.#direct, at, into, 0),
      () => this.#readBounced(at, into),
    );
  }

  async #readBounced(at: number, into: Uint8Array): Promise<number> {
    const bounce = this.#bounces.take(Math.min(BOUNCE_SIZE, into.length));
    try {
      for (let done = 0; done < into.length; ) {
        const piece = bounce.subarray(0, Math.min(BOUNCE_SIZE, into.length - done));
        const count = await readOnceInPool(this.#direct, at + done, piece, 0);
        into.set(piece.subarray(0, count), done);
        done += count;
        if (count < piece.length) return done;
      }
      return into.length;
    } finally {
      this.#bounces.giveBack(bounce);
    }
  }

  async #writeBounced(at: number, from: Uint8Array): Promise<number> {
    const bounce = this.#bounces.take(Math.min(BOUNCE_SIZE, from.length));
    try {
      for (let done = 0; done < from.length; ) {
        const piece = bounce.subarray(0, Math.min(BOUNCE_SIZE, from.length - done));
        piece.set(from.subarray(done, done + piece.length));
        const count = await writeOnceInPool(this.#direct, at + done, piece, 0);
        done += count;
        if (count < piece.length) return done;
      }
      return from.length;
    } finally {
      this.#bounces.giveBack(bounce);
    }
  }
}

function isDirect(at: number, length: number): boolean {
  return length > 0 && isAligned(at, DIRECT_ALIGNMENT) && isAligned(length, DIRECT_ALIGNMENT);
}
