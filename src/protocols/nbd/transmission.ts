/**
 * The requests of one connection, after the handshake.
 *
 * Requests are parsed where they lie. What the disk answers at once is answered in the same call, without a promise;
 * anything else is answered when the disk is done, in any order. Bounds: `NbdLimits` and limits.ts; above them no further
 * request is read and the transport is paused, so that the client's own socket fills.
 */
import { viewOf } from "../../base/bytes.js";
import { isZcowError, ZcowError } from "../../base/errors.js";
import type { MaybePromise } from "../../base/maybe-promise.js";
import { COMMAND, COMMAND_FLAG, ERROR_NUMBER, LENGTH, MAGIC, REQUEST, readU64 } from "../../codec/nbd/wire.js";
import type { Transport } from "../nvme/transport.js";
import { answerBlockStatus } from "./block-status.js";
import { errorNumberOf } from "./error-number.js";
import { isZero, type NbdExport } from "./export.js";
import type { Agreement } from "./handshake.js";
import { PART_BYTES, PIECE_BYTES, REQUEST_BYTES } from "./limits.js";
import { PayloadWrites } from "./payload-writes.js";
import { dataOf, Replies, type RequestId } from "./replies.js";
import { ReplyBlocks, type ReplyRoom, SHARED_BYTES } from "./reply-blocks.js";
import { SPARSE_BYTES, sendSparse } from "./sparse-read.js";
import type { NbdTarget } from "./target.js";

/** What a transmission tells its connection. */
export interface TransmissionOwner {
  /** The client wants to leave, and everything is answered. */
  left(): void;
  /** The stream cannot be understood, or its answers cannot be told, any more. */
  broken(reason: string): void;
  failed(operation: string, error: ZcowError): void;
  /** A request was answered late: others may be started now. */
  freed(): void;
}

const OPERATIONS: Readonly<Record<number, string>> = {
  [COMMAND.read]: "read",
  [COMMAND.write]: "write",
  [COMMAND.flush]: "flush",
  [COMMAND.trim]: "trim",
  [COMMAND.cache]: "cache",
  [COMMAND.writeZeroes]: "write zeroes",
  [COMMAND.blockStatus]: "block status",
  [COMMAND.resize]: "resize",
};

/** Flags that each command may have. */
const ALLOWED_FLAGS: Readonly<Record<number, number>> = {
  [COMMAND.read]: COMMAND_FLAG.dontFragment | COMMAND_FLAG.fua,
  [COMMAND.write]: COMMAND_FLAG.fua | COMMAND_FLAG.payloadLength,
  [COMMAND.flush]: COMMAND_FLAG.fua,
  [COMMAND.trim]: COMMAND_FLAG.fua,
  [COMMAND.cache]: COMMAND_FLAG.fua,
  [COMMAND.writeZeroes]: COMMAND_FLAG.fua | COMMAND_FLAG.noHole | COMMAND_FLAG.fastZero,
  [COMMAND.blockStatus]: COMMAND_FLAG.oneExtent | COMMAND_FLAG.fua,
  [COMMAND.resize]: COMMAND_FLAG.fua,
};

/** Why a request is refused before anything is done. */
interface Refusal {
  /** As the protocol numbers it. */
  readonly error: number;
  readonly text: string;
}

/** A part of a reply that the disk is still reading. */
interface ReadPart {
  readonly room: ReplyRoom;
  /** Of its data in the export. */
  readonly offset: number;
  readonly wait: Promise<void>;
}

export class Transmission {
  /** Requests that have come so far. */
  requests = 0;
  readonly #target: NbdTarget;
  readonly #transport: Transport;
  readonly #owner: TransmissionOwner;
  readonly #agreement: Agreement;
  readonly #export: NbdExport;
  readonly #replies: Replies;
  readonly #blocks: ReplyBlocks;
  readonly #writes: PayloadWrites;
  readonly #headLength: number;
  readonly #magic: number;
  /** The start of a request whose end has not come. */
  readonly #held = new Uint8Array(LENGTH.extendedRequest);
  readonly #heldView = viewOf(this.#held);
  #heldLength = 0;
  /** Of the request that is being started; those that take longer keep a copy. */
  readonly #id = { high: 0, low: 0, offset: 0 };
  #length = 0;
  /** Requests that wait for the disk, and bytes that are held for them. */
  #busy = 0;
  #busyBytes = 0;
  #leaving = false;
  #over = false;
  /** Told when the backlog may have become shorter. */
  #waiting: (() => void)[] = [];

  constructor(target: NbdTarget, transport: Transport, agreement: Agreement, owner: TransmissionOwner) {
    this.#target = target;
    this.#transport = transport;
    this.#owner = owner;
    this.#agreement = agreement;
    this.#export = agreement.export;
    this.#blocks = new ReplyBlocks(transport, target.allocate);
    this.#replies = new Replies(agreement.form, this.#blocks);
    const extended = agreement.form === "extended";
    this.#headLength = extended ? LENGTH.extendedRequest : LENGTH.request;
    this.#magic = extended ? MAGIC.extendedRequest : MAGIC.request;
    this.#writes = new PayloadWrites(target.buffers, {
      write: (offset, from, durable) => this.#export.write(offset, from, durable),
      hold: (bytes) => this.#begin(bytes),
      release: (bytes) => this.#end(bytes),
      written: (write) => this.#replies.done(write.high, write.low, write.offset),
      failed: (write, error) => this.#fail(write, "write", error),
    });
  }

  /** No further request may be started now. */
  readonly halted = (): boolean => {
    const { requestsInFlight, bytesInFlight, backlogBytes } = this.#target.limits;
    return (
      this.#over ||
      this.#blocks.inPieces ||
      this.#busy >= requestsInFlight ||
      this.#busyBytes > bytesInFlight ||
      this.#transport.backlog > backlogBytes
    );
  };

  /** Uses bytes from `chunk`; returns how many. Fewer than all: {@link halted}. */
  take(chunk: Uint8Array): number {
    const view = viewOf(chunk);
    const head = this.#headLength;
    let at = 0;
    while (at < chunk.length && !this.#leaving) {
      if (this.#writes.receiving) {
        const used = this.#writes.take(chunk, at, this.halted);
        if (used === 0) break;
        at += used;
      } else if (this.halted()) {
        break;
      } else if (this.#heldLength === 0 && chunk.length - at >= head) {
        at += head;
        this.#request(view, at - head);
      } else {
        at += this.#hold(chunk, at);
      }
    }
    this.#blocks.flush();
    // What follows a farewell is nothing.
    return this.#leaving ? chunk.length : at;
  }

  /** See {@link PayloadWrites.room}. */
  get room(): Uint8Array | undefined {
    return this.#writes.room;
  }

  /** The next `count` bytes are in {@link room}. */
  filled(count: number): void {
    this.#writes.filled(count);
    this.#blocks.flush();
  }

  /** No request waits for the disk, and none for its answer to leave. */
  get idle(): boolean {
    return this.#busy === 0 && !this.#leaving && !this.#blocks.inPieces;
  }

  /** The backlog has become shorter. */
  drained(): void {
    const waiting = this.#waiting;
    if (waiting.length === 0) return;
    this.#waiting = [];
    for (const go of waiting) go();
  }

  /** The connection is gone: answers are dropped from now on. */
  finish(): void {
    this.#over = true;
    this.#writes.abandon();
    this.drained();
  }

  // --- requests --------------------------------------------------------------------------------------

  #hold(chunk: Uint8Array, at: number): number {
    const taken = Math.min(this.#headLength - this.#heldLength, chunk.length - at);
    this.#held.set(chunk.subarray(at, at + taken), this.#heldLength);
    this.#heldLength += taken;
    if (this.#heldLength === this.#headLength) {
      this.#heldLength = 0;
      this.#request(this.#heldView, 0);
    }
    return taken;
  }

  #request(view: DataView, at: number): void {
    if (view.getUint32(at + REQUEST.magic) !== this.#magic)
      return this.#break("a request does not start with its magic");
    this.requests += 1;
    const flags = view.getUint16(at + REQUEST.flags);
    const type = view.getUint16(at + REQUEST.type);
    const id = this.#id;
    id.high = view.getUint32(at + REQUEST.cookie);
    id.low = view.getUint32(at + REQUEST.cookie + 4);
    id.offset = readU64(view, at + REQUEST.offset);
    const extended = this.#magic === MAGIC.extendedRequest;
    const length = extended ? readU64(view, at + REQUEST.length) : view.getUint32(at + REQUEST.length);
    this.#length = length;
    switch (type) {
      case COMMAND.read:
        if (this.#permitted(type, flags)) this.#read(flags, length);
        return;
      case COMMAND.write:
        return this.#write(flags, length);
      case COMMAND.disconnect:
        return this.#leave();
      case COMMAND.flush:
        if (this.#permitted(type, flags)) this.#whenDone("flush", () => this.#export.device.flush());
        return;
      case COMMAND.trim:
        if (this.#permitted(type, flags)) this.#trim(flags, length);
        return;
      case COMMAND.cache:
        if (this.#permitted(type, flags)) this.#cache(length);
        return;
      case COMMAND.writeZeroes:
        if (this.#permitted(type, flags)) this.#writeZeroes(flags, length);
        return;
      case COMMAND.blockStatus:
        if (this.#permitted(type, flags)) this.#blockStatus(flags, length);
        return;
      case COMMAND.resize:
        if ((flags & COMMAND_FLAG.payloadLength) !== 0) return this.#break("a resize with data");
        if (this.#permitted(type, flags)) this.#resize(flags);
        return;
      default:
        // A request with data behind it, of a kind we do not know, leaves no way to find the next one.
        if (extended && (flags & COMMAND_FLAG.payloadLength) !== 0)
          return this.#break(`unknown command ${type} with data`);
        return this.#refuse(type, ERROR_NUMBER.EINVAL, `unknown command ${type}`);
    }
  }

  /** Refuses what can be refused before anything is done. The range is that of the request being started. */
  #permitted(type: number, flags: number): boolean {
    const refusal = this.#refusalOf(type, flags);
    if (refusal === undefined) return true;
    this.#refuse(type, refusal.error, refusal.text);
    return false;
  }

  #refusalOf(type: number, flags: number): Refusal | undefined {
    const offset = this.#id.offset;
    const length = this.#length;
    const allowed = ALLOWED_FLAGS[type] ?? 0;
    if ((flags & ~allowed) !== 0) {
      const text = `flags 0x${flags.toString(16)} are not known for this command`;
      return { error: ERROR_NUMBER.EINVAL, text };
    }
    if (type === COMMAND.flush) return undefined;
    if (type === COMMAND.resize) return this.#resizeRefusal();
    const changes = type === COMMAND.write || type === COMMAND.trim || type === COMMAND.writeZeroes;
    if (changes && this.#export.readOnly) return { error: ERROR_NUMBER.EPERM, text: "the export is read-only" };
    // Positions above 2^53 are infinite, and fail this.
    if (offset + length <= this.#export.size) return undefined;
    const error = changes && type !== COMMAND.trim ? ERROR_NUMBER.ENOSPC : ERROR_NUMBER.EINVAL;
    return { error, text: `offset ${offset} and length ${length} reach past the end at ${this.#export.size}` };
  }

  /** What the disk itself does not look at: it counts from its own start, and knows no requests. */
  #resizeRefusal(): Refusal | undefined {
    const { offset: size } = this.#id;
    if (!this.#export.resizable) return { error: ERROR_NUMBER.EPERM, text: "this export is not offered for resizing" };
    if (this.#length !== 0) return { error: ERROR_NUMBER.EINVAL, text: `a length of ${this.#length} in place of 0` };
    if (!Number.isSafeInteger(this.#export.offset + size))
      return { error: ERROR_NUMBER.EINVAL, text: "a size above 2^53 bytes" };
    return undefined;
  }

  #read(flags: number, length: number): void {
    const id = this.#id;
    if (length > REQUEST_BYTES) {
      return this.#refuse(COMMAND.read, ERROR_NUMBER.EINVAL, `a read of more than ${REQUEST_BYTES} bytes`);
    }
    if (length === 0) return this.#replies.doneReading(id.high, id.low, id.offset);
    const fragments = this.#replies.form !== "simple" && (flags & COMMAND_FLAG.dontFragment) === 0;
    if (length > PIECE_BYTES) {
      const read = fragments ? this.#readInChunks({ ...id }, length) : this.#readInPieces({ ...id }, length);
      read.catch((error: unknown) => this.#owner.broken(messageOf(error)));
    } else if (length + this.#replies.dataHead > SHARED_BYTES) {
      if (fragments) this.#readInParts(length);
      else this.#readApart(length);
    } else {
      this.#readShared(fragments && length >= SPARSE_BYTES, length);
    }
  }

  /** The hot path: the reply is built behind the one before it. */
  #readShared(sparse: boolean, length: number): void {
    const { dataHead } = this.#replies;
    const id = this.#id;
    const blocks = this.#blocks;
    const start = blocks.claim(dataHead + length);
    let wait: MaybePromise<void>;
    try {
      wait = this.#export.read(id.offset, blocks.block.subarray(start + dataHead, start + dataHead + length));
    } catch (error) {
      blocks.unclaim(start);
      return this.#fail(id, "read", error);
    }
    if (wait !== undefined) return this.#sendWhenRead(wait, blocks.setAside(start), sparse);
    if (sparse && isZero(blocks.block.subarray(start + dataHead, start + dataHead + length))) {
      blocks.unclaim(start);
      const at = blocks.claim(this.#replies.holeLength);
      this.#replies.writeHole(blocks.view, at, id, id.offset, length, true);
    } else {
      this.#replies.writeDataHead(blocks.view, start, id, id.offset, length, true);
    }
  }

  /** A reply of its own, which tells of an error as such. */
  #readApart(length: number): void {
    const { dataHead } = this.#replies;
    const room = this.#blocks.apart(dataHead + length);
    let wait: MaybePromise<void>;
    try {
      wait = this.#export.read(this.#id.offset, dataOf(room, dataHead));
    } catch (error) {
      this.#blocks.release(room);
      return this.#fail(this.#id, "read", error);
    }
    this.#sendWhenRead(wait, room, false);
  }

  /** In several chunks, so that each leaves before the processor's cache forgets it. */
  #readInParts(length: number): void {
    const { dataHead } = this.#replies;
    const id = this.#id;
    for (let done = 0; done < length; done += PART_BYTES) {
      const size = Math.min(PART_BYTES, length - done);
      const room = this.#blocks.apart(dataHead + size);
      let wait: MaybePromise<void>;
      try {
        wait = this.#export.read(id.offset + done, dataOf(room, dataHead));
      } catch (error) {
        this.#blocks.release(room);
        return this.#fail(id, "read", error);
      }
      if (wait !== undefined) return this.#readRestLater({ ...id }, done, length, room, wait);
      sendSparse(this.#replies, room, id, id.offset + done, done + size === length);
    }
  }

  /** The disk takes its time for the part at `done`, so all the rest is asked for now. */
  #readRestLater(id: RequestId, done: number, length: number, room: ReplyRoom, wait: Promise<void>): void {
    const { dataHead } = this.#replies;
    const next = done + room.length - dataHead;
    if (next === length) return this.#sendPartsWhenRead(id, length - done, [{ room, offset: id.offset + done, wait }]);
    const rest = this.#blocks.apart(dataHead + length - next);
    const restRead = async (): Promise<void> => this.#export.read(id.offset + next, dataOf(rest, dataHead));
    this.#sendPartsWhenRead(id, length - done, [
      { room, offset: id.offset + done, wait },
      { room: rest, offset: id.offset + next, wait: restRead() },
    ]);
  }

  #sendPartsWhenRead(id: RequestId, bytes: number, parts: readonly ReadPart[]): void {
    this.#begin(bytes);
    Promise.allSettled(parts.map(({ wait }) => wait))
      .then((results) => {
        const failure = results.find((result) => result.status === "rejected");
        for (const [index, { room, offset }] of parts.entries()) {
          if (failure !== undefined || this.#over) this.#blocks.release(room);
          else sendSparse(this.#replies, room, id, offset, index === parts.length - 1);
        }
        if (failure !== undefined) this.#fail(id, "read", failure.reason);
      })
      .catch((error: unknown) => this.#owner.broken(messageOf(error)))
      .finally(() => this.#end(bytes));
  }

  #sendWhenRead(wait: MaybePromise<void>, room: ReplyRoom, sparse: boolean): void {
    if (wait === undefined) return this.#sendRead(room, this.#id, sparse);
    const id = { ...this.#id };
    this.#begin(room.length);
    wait.then(
      () => {
        if (!this.#over) this.#sendRead(room, id, sparse);
        this.#end(room.length);
      },
      (error: unknown) => {
        this.#blocks.release(room);
        this.#fail(id, "read", error);
        this.#end(room.length);
      },
    );
  }

  #sendRead(room: ReplyRoom, id: RequestId, sparse: boolean): void {
    const { dataHead } = this.#replies;
    if (sparse) return sendSparse(this.#replies, room, id, id.offset, true);
    this.#replies.writeDataHead(room.view, room.start, id, id.offset, room.length - dataHead, true);
    this.#blocks.send(room);
  }

  /** A large read as several chunks, each of which is read when the ones before have left. */
  async #readInChunks(id: RequestId, length: number): Promise<void> {
    const { dataHead } = this.#replies;
    this.#begin(PIECE_BYTES);
    try {
      for (let done = 0; done < length && !this.#over; done += PIECE_BYTES) {
        const size = Math.min(PIECE_BYTES, length - done);
        const room = this.#blocks.apart(dataHead + size);
        await this.#export.read(id.offset + done, dataOf(room, dataHead));
        if (this.#over) return;
        sendSparse(this.#replies, room, id, id.offset + done, done + size === length);
        await this.#whenShort();
      }
    } catch (error) {
      this.#fail(id, "read", error);
    } finally {
      this.#end(PIECE_BYTES);
    }
  }

  /** A large read whose data must come in one run. An error in its middle cannot be told: the connection ends. */
  async #readInPieces(id: RequestId, length: number): Promise<void> {
    const { dataHead } = this.#replies;
    this.#begin(PIECE_BYTES);
    this.#blocks.beginPieces();
    try {
      for (let done = 0; done < length && !this.#over; done += PIECE_BYTES) {
        const size = Math.min(PIECE_BYTES, length - done);
        const head = done === 0 ? dataHead : 0;
        const room = this.#blocks.apart(head + size);
        try {
          await this.#export.read(id.offset + done, dataOf(room, head));
        } catch (error) {
          if (done > 0) throw error;
          return this.#fail(id, "read", error);
        }
        if (this.#over) return;
        if (head > 0) this.#replies.writeDataHead(room.view, 0, id, id.offset, length, true);
        this.#blocks.sendPiece(room);
        await this.#whenShort();
      }
    } finally {
      this.#blocks.endPieces();
      this.#end(PIECE_BYTES);
    }
  }

  #write(flags: number, length: number): void {
    const id = this.#id;
    // The data follows in any case; so much of it is passed over to learn nothing.
    if (length > REQUEST_BYTES) return this.#break(`a write of ${length} bytes; at most ${REQUEST_BYTES} are taken`);
    // In extended headers every write says that data follows.
    const payloadMissing = this.#replies.form === "extended" && (flags & COMMAND_FLAG.payloadLength) === 0;
    if (payloadMissing) return this.#break("a write does not announce its data");
    const refusal = this.#refusalOf(COMMAND.write, flags);
    if (refusal !== undefined) this.#refuseWrite(refusal, length);
    else if (length === 0) this.#replies.done(id.high, id.low, id.offset);
    else this.#writes.start(id.high, id.low, id.offset, length, (flags & COMMAND_FLAG.fua) !== 0);
  }

  /** Clients know nothing of a request that they have not sent to its end, and would not understand an answer to it. */
  #refuseWrite({ error, text }: Refusal, length: number): void {
    if (length === 0) return this.#refuse(COMMAND.write, error, text);
    const id = { ...this.#id };
    this.#writes.skip(length, () => this.#replies.failed(id, error, `write: ${text}`));
  }

  #trim(flags: number, length: number): void {
    const { offset } = this.#id;
    const durable = (flags & COMMAND_FLAG.fua) !== 0;
    this.#whenDone("trim", () => {
      const wait = this.#export.discard(offset, length);
      if (!durable) return wait;
      return wait === undefined ? this.#export.device.flush() : wait.then(() => this.#export.device.flush());
    });
  }

  #writeZeroes(flags: number, length: number): void {
    const { offset } = this.#id;
    // A raw disk may have to write the zeros; an image with tables marks them there.
    if ((flags & COMMAND_FLAG.fastZero) !== 0 && this.#export.device.format === "raw") {
      return this.#refuse(COMMAND.writeZeroes, ERROR_NUMBER.ENOTSUP, "zeroing may take as long as writing");
    }
    const durable = (flags & COMMAND_FLAG.fua) !== 0;
    const keepSpace = (flags & COMMAND_FLAG.noHole) !== 0;
    this.#whenDone("write zeroes", () => this.#export.writeZeroes(offset, length, durable, keepSpace));
  }

  /** Requests that come later on any connection have the new size when this is answered. */
  #resize(flags: number): void {
    const { offset: size } = this.#id;
    this.#whenDone("resize", () => this.#export.resize(size, (flags & COMMAND_FLAG.fua) !== 0));
  }

  /** Reads the range into the host's page cache, as far as one request may reach. */
  #cache(length: number): void {
    const { offset } = this.#id;
    const end = offset + Math.min(length, REQUEST_BYTES);
    this.#whenDone("cache", async () => {
      const scratch = this.#target.buffers.take(PIECE_BYTES);
      try {
        for (let at = offset; at < end && !this.#over; at += PIECE_BYTES) {
          await this.#export.read(at, scratch.subarray(0, Math.min(PIECE_BYTES, end - at)));
          await this.#yield();
        }
      } finally {
        this.#target.buffers.give(scratch);
      }
    });
  }

  #blockStatus(flags: number, length: number): void {
    const id = { ...this.#id };
    const { contexts } = this.#agreement;
    if (contexts.length === 0 || length === 0) {
      const why = length === 0 ? "a query of nothing" : "no metadata context was chosen";
      return this.#refuse(COMMAND.blockStatus, ERROR_NUMBER.EINVAL, why);
    }
    this.#begin(0);
    const query = { id, length, only: (flags & COMMAND_FLAG.oneExtent) !== 0, start: this.#export.offset + id.offset };
    answerBlockStatus(this.#replies, contexts, query, () => this.#over)
      .catch((error: unknown) => this.#fail(id, "block status", error))
      .finally(() => this.#end(0));
  }

  // --- answers ---------------------------------------------------------------------------------------

  /** Answers the request being started when `work` is done. */
  #whenDone(operation: string, work: () => MaybePromise<void>): void {
    const id = this.#id;
    let wait: MaybePromise<void>;
    try {
      wait = work();
    } catch (error) {
      return this.#fail(id, operation, error);
    }
    if (wait === undefined) return this.#replies.done(id.high, id.low, id.offset);
    const { high, low, offset } = id;
    this.#begin(0);
    wait.then(
      () => {
        if (!this.#over) this.#replies.done(high, low, offset);
        this.#end(0);
      },
      (error: unknown) => {
        this.#fail({ high, low, offset }, operation, error);
        this.#end(0);
      },
    );
  }

  #refuse(type: number, error: number, text: string): void {
    this.#replies.failed(this.#id, error, `${OPERATIONS[type] ?? "request"}: ${text}`);
  }

  #fail(id: RequestId, operation: string, error: unknown): void {
    if (this.#over) return;
    this.#replies.failed(id, errorNumberOf(error), messageOf(error));
    const known = isZcowError(error) ? error : new ZcowError("IO_ERROR", messageOf(error), { cause: error });
    this.#owner.failed(operation, known);
  }

  #begin(bytes: number): void {
    this.#busy += 1;
    this.#busyBytes += bytes;
  }

  #end(bytes: number): void {
    this.#busy -= 1;
    this.#busyBytes -= bytes;
    if (this.#over) return;
    this.#blocks.flush();
    if (this.#leaving && this.#busy === 0) this.#owner.left();
    else this.#owner.freed();
  }

  #leave(): void {
    this.#leaving = true;
    this.#blocks.flush();
    if (this.#busy === 0) this.#owner.left();
  }

  #break(reason: string): void {
    this.#leaving = true;
    this.#blocks.flush();
    this.#owner.broken(reason);
  }

  // --- waiting ---------------------------------------------------------------------------------------

  /** Resolves when the client has read most of what was sent, or is gone. */
  async #whenShort(): Promise<void> {
    while (!this.#over && this.#transport.backlog > this.#target.limits.backlogBytes / 2) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    // Others want to be served, too.
    await this.#yield();
  }

  #yield(): Promise<void> {
    return new Promise((resolve) => this.#target.soon(resolve));
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
