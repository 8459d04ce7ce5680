/** The replies of one connection, in the form that was agreed on. */
import { writeU64 } from "../../base/bytes.js";
import { CHUNK, CHUNK_DONE, LENGTH, MAGIC, REPLY } from "../../codec/nbd/wire.js";
import type { ReplyForm } from "./handshake.js";
import type { StatusExtent } from "./meta-context.js";
import { type ReplyBlocks, type ReplyRoom, SHARED_BYTES } from "./reply-blocks.js";

/** Which request a reply is for: the client's number, and where the request starts. */
export interface RequestId {
  readonly high: number;
  readonly low: number;
  readonly offset: number;
}

/** Longest text of an error, characters. */
const ERROR_TEXT = 1024;
const encoder = new TextEncoder();

export class Replies {
  readonly form: ReplyForm;
  readonly blocks: ReplyBlocks;
  /** Bytes in front of the data of a read. */
  readonly dataHead: number;
  readonly #head: number;

  constructor(form: ReplyForm, blocks: ReplyBlocks) {
    this.form = form;
    this.blocks = blocks;
    this.#head = { simple: LENGTH.simpleReply, structured: LENGTH.structuredReply, extended: LENGTH.extendedReply }[
      form
    ];
    this.dataHead = form === "simple" ? this.#head : this.#head + LENGTH.chunkOffset;
  }

  /** Success without data. */
  done(high: number, low: number, offset: number): void {
    // Smaller, and allowed as long as headers are not extended.
    const length = this.form === "extended" ? LENGTH.extendedReply : LENGTH.simpleReply;
    const at = this.blocks.claim(length);
    const { view } = this.blocks;
    if (this.form === "extended") this.#chunkHead(view, at, high, low, CHUNK_DONE, CHUNK.none, offset, 0);
    else writeSimple(view, at, 0, high, low);
  }

  /** Success of a read of nothing, which a simple reply cannot tell to who expects chunks. */
  doneReading(high: number, low: number, offset: number): void {
    if (this.form !== "structured") return this.done(high, low, offset);
    const at = this.blocks.claim(LENGTH.structuredReply);
    this.#chunkHead(this.blocks.view, at, high, low, CHUNK_DONE, CHUNK.none, offset, 0);
  }

  /** Failure; `text` is for people. */
  failed(id: RequestId, error: number, text: string): void {
    if (this.form === "simple") {
      const at = this.blocks.claim(LENGTH.simpleReply);
      writeSimple(this.blocks.view, at, error, id.high, id.low);
      return;
    }
    const bytes = encoder.encode(text.slice(0, ERROR_TEXT));
    const payload = 4 + 2 + bytes.length;
    const at = this.blocks.claim(this.#head + payload);
    const { view, block } = this.blocks;
    this.#chunkHead(view, at, id.high, id.low, CHUNK_DONE, CHUNK.error, id.offset, payload);
    const body = at + this.#head;
    view.setUint32(body, error);
    view.setUint16(body + 4, bytes.length);
    block.set(bytes, body + 6);
  }

  /** Writes what stands in front of the `length` bytes of data of a read, {@link dataHead} bytes before them. */
  writeDataHead(view: DataView, at: number, id: RequestId, offset: number, length: number, last: boolean): void {
    if (this.form === "simple") {
      writeSimple(view, at, 0, id.high, id.low);
      return;
    }
    const flags = last ? CHUNK_DONE : 0;
    this.#chunkHead(view, at, id.high, id.low, flags, CHUNK.data, id.offset, length + LENGTH.chunkOffset);
    writeU64(view, at + this.#head, offset);
  }

  /** Bytes of {@link writeHole}. */
  get holeLength(): number {
    return this.#head + LENGTH.chunkOffset + 4;
  }

  /** Writes a chunk that stands for `length` zeros. Not for simple replies. */
  writeHole(view: DataView, at: number, id: RequestId, offset: number, length: number, last: boolean): void {
    const flags = last ? CHUNK_DONE : 0;
    this.#chunkHead(view, at, id.high, id.low, flags, CHUNK.hole, id.offset, LENGTH.chunkOffset + 4);
    writeU64(view, at + this.#head, offset);
    view.setUint32(at + this.#head + LENGTH.chunkOffset, length);
  }

  /** The extents of one context, whose number the client knows. */
  blockStatus(id: RequestId, contextId: number, extents: readonly StatusExtent[], last: boolean): void {
    const extended = this.form === "extended";
    const each = extended ? 16 : 8;
    const fixed = extended ? 8 : 4;
    const payload = fixed + each * extents.length;
    const length = this.#head + payload;
    const room = length > SHARED_BYTES ? this.blocks.apart(length) : undefined;
    const start = room?.start ?? this.blocks.claim(length);
    const view = room?.view ?? this.blocks.view;
    const type = extended ? CHUNK.extendedBlockStatus : CHUNK.blockStatus;
    this.#chunkHead(view, start, id.high, id.low, last ? CHUNK_DONE : 0, type, id.offset, payload);
    let at = start + this.#head;
    view.setUint32(at, contextId);
    if (extended) view.setUint32(at + 4, extents.length);
    at += fixed;
    for (const extent of extents) {
      if (extended) {
        writeU64(view, at, extent.length);
        writeU64(view, at + 8, extent.status);
      } else {
        view.setUint32(at, extent.length);
        view.setUint32(at + 4, extent.status);
      }
      at += each;
    }
    if (room !== undefined) this.blocks.send(room);
  }

  #chunkHead(
    view: DataView,
    at: number,
    high: number,
    low: number,
    flags: number,
    type: number,
    offset: number,
    length: number,
  ): void {
    const extended = this.form === "extended";
    view.setUint32(at + REPLY.magic, extended ? MAGIC.extendedReply : MAGIC.structuredReply);
    view.setUint16(at + REPLY.flags, flags);
    view.setUint16(at + REPLY.type, type);
    view.setUint32(at + REPLY.cookie, high);
    view.setUint32(at + REPLY.cookie + 4, low);
    if (extended) {
      // The offset of the request, not of the chunk.
      writeU64(view, at + REPLY.extendedOffset, offset);
      writeU64(view, at + REPLY.extendedLength, length);
    } else {
      view.setUint32(at + REPLY.length, length);
    }
  }
}

/** A room's data, behind the header of a read. */
export function dataOf(room: ReplyRoom, head: number): Uint8Array {
  return room.block.subarray(room.start + head, room.start + room.length);
}

function writeSimple(view: DataView, at: number, error: number, high: number, low: number): void {
  view.setUint32(at, MAGIC.simpleReply);
  view.setUint32(at + 4, error);
  view.setUint32(at + 8, high);
  view.setUint32(at + 12, low);
}
