/**
 * Writes whose data is coming in. Data is gathered in memory that the disk may keep until it is done; a large write is
 * handed to it in pieces while the rest is still on its way.
 */
import type { MaybePromise } from "../../base/maybe-promise.js";
import { KiB } from "../../base/units.js";
import type { DataBuffers } from "../nvme/data-buffers.js";
import { PIECE_BYTES } from "./limits.js";
import type { RequestId } from "./replies.js";

/** Less than this is received together with what surrounds it, and copied. */
const ROOM_BYTES = 16 * KiB;

interface PayloadWrite extends RequestId {
  readonly length: number;
  readonly durable: boolean;
  /** Bytes that have come. */
  received: number;
  /** Pieces that the disk has not done yet. */
  pieces: number;
  failed: boolean;
  failure: unknown;
}

export interface PayloadHooks {
  write(offset: number, from: Uint8Array, durable: boolean): MaybePromise<void>;
  /** Memory is held for the disk, and is no more. */
  hold(bytes: number): void;
  release(bytes: number): void;
  /** All of a write is done. */
  written(write: RequestId): void;
  failed(write: RequestId, error: unknown): void;
}

export class PayloadWrites {
  readonly #buffers: DataBuffers;
  readonly #hooks: PayloadHooks;
  #current: PayloadWrite | undefined = undefined;
  #piece: Uint8Array | undefined = undefined;
  #filled = 0;
  #skip = 0;
  #skipped: (() => void) | undefined = undefined;

  constructor(buffers: DataBuffers, hooks: PayloadHooks) {
    this.#buffers = buffers;
    this.#hooks = hooks;
  }

  /** The next bytes are data. */
  get receiving(): boolean {
    return this.#current !== undefined || this.#skip > 0;
  }

  /** The next `length` bytes are the data of this write. Not 0. */
  start(high: number, low: number, offset: number, length: number, durable: boolean): void {
    this.#current = { high, low, offset, length, durable, received: 0, pieces: 0, failed: false, failure: undefined };
  }

  /** The next `length` bytes are the data of a write that is refused. `done` is called when they have come. Not 0. */
  skip(length: number, done: () => void): void {
    this.#skip = length;
    this.#skipped = done;
  }

  /** Where the next bytes of data may be put by whoever receives them, when there is so much to come that it pays. */
  get room(): Uint8Array | undefined {
    const write = this.#current;
    if (write === undefined || this.#skip > 0) return undefined;
    // What comes after the first piece may have to wait.
    if (this.#piece === undefined && write.received === 0 && write.length >= ROOM_BYTES) this.#beginPiece(write);
    const piece = this.#piece;
    if (piece === undefined || piece.length - this.#filled < ROOM_BYTES) return undefined;
    return this.#filled === 0 ? piece : piece.subarray(this.#filled);
  }

  /** The next `count` bytes of data are in {@link room}. */
  filled(count: number): void {
    this.#filled += count;
    const piece = this.#piece as Uint8Array;
    if (this.#filled === piece.length) this.#submit(this.#current as PayloadWrite, piece);
  }

  /** Takes data from byte `at` of the chunk; returns how much. 0: `halted`, so that no piece may be begun. */
  take(chunk: Uint8Array, at: number, halted: () => boolean): number {
    if (this.#skip > 0) {
      const skipped = Math.min(this.#skip, chunk.length - at);
      this.#skip -= skipped;
      if (this.#skip === 0) this.#skipped?.();
      return skipped;
    }
    const write = this.#current as PayloadWrite;
    if (this.#piece === undefined) {
      if (write.received > 0 && halted()) return 0;
      this.#beginPiece(write);
    }
    const piece = this.#piece as Uint8Array;
    const taken = Math.min(piece.length - this.#filled, chunk.length - at);
    piece.set(taken === chunk.length ? chunk : chunk.subarray(at, at + taken), this.#filled);
    this.#filled += taken;
    if (this.#filled === piece.length) this.#submit(write, piece);
    return taken;
  }

  /** The connection is gone. */
  abandon(): void {
    this.#current = undefined;
    this.#piece = undefined;
    this.#skip = 0;
  }

  #beginPiece(write: PayloadWrite): void {
    this.#piece = this.#buffers.take(Math.min(PIECE_BYTES, write.length - write.received));
    this.#filled = 0;
  }

  #submit(write: PayloadWrite, piece: Uint8Array): void {
    const offset = write.offset + write.received;
    write.received += piece.length;
    this.#piece = undefined;
    if (write.received === write.length) this.#current = undefined;
    if (write.failed) return this.#pieceDone(write, piece);
    let wait: MaybePromise<void>;
    try {
      wait = this.#hooks.write(offset, piece, write.durable);
    } catch (error) {
      fail(write, error);
      return this.#pieceDone(write, piece);
    }
    if (wait === undefined) return this.#pieceDone(write, piece);
    write.pieces += 1;
    this.#hooks.hold(piece.length);
    const done = (): void => {
      write.pieces -= 1;
      this.#pieceDone(write, piece);
      this.#hooks.release(piece.length);
    };
    wait.then(done, (error: unknown) => {
      fail(write, error);
      done();
    });
  }

  #pieceDone(write: PayloadWrite, piece: Uint8Array): void {
    this.#buffers.give(piece);
    if (write.pieces > 0 || write.received < write.length) return;
    if (write.failed) this.#hooks.failed(write, write.failure);
    else this.#hooks.written(write);
  }
}

function fail(write: PayloadWrite, error: unknown): void {
  if (write.failed) return;
  write.failed = true;
  write.failure = error;
}
