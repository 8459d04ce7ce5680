/**
 * Memory for what goes to the client, in large blocks, so that what one turn produces leaves in one piece.
 *
 * A block is filled from front to back. Replies that are finished when the next one begins are sent together with
 * it; a reply that waits for the disk keeps its place in the block and is sent alone later.
 */
import { viewOf } from "../../base/bytes.js";
import { KiB } from "../../base/units.js";
import type { Transport } from "../nvme/transport.js";

/**
 * Bytes of a block: the first one is small, since many connections idle; later ones grow to where they spare
 * allocations and a late reply still keeps little alive.
 */
const FIRST_BLOCK_BYTES = 4 * KiB;
const LARGEST_BLOCK_BYTES = 256 * KiB;
/** Replies above this get a block of their own. */
export const SHARED_BYTES = 96 * KiB;

/** Who still needs the memory of a block. */
interface BlockUse {
  /** Replies that are finished later. */
  late: number;
  /** It is full: another one is being filled. */
  full: boolean;
}

/** The place of a reply that is finished later. */
export interface ReplyRoom {
  readonly block: Uint8Array;
  readonly view: DataView;
  readonly start: number;
  readonly length: number;
  /** `undefined`: the block is this reply's alone. */
  readonly use: BlockUse | undefined;
}

export class ReplyBlocks {
  /** The block that is being filled, after {@link claim}. */
  block: Uint8Array = new Uint8Array(0);
  view: DataView = viewOf(this.block);
  readonly #transport: Transport;
  readonly #allocate: (bytes: number) => Uint8Array;
  /** Finished and unsent: [sendFrom, at) of the block. */
  #sendFrom = 0;
  #at = 0;
  #use: BlockUse = { late: 0, full: false };
  /** What is kept back while a reply leaves in several pieces that nothing may come between. */
  #kept: (() => void)[] | undefined;

  /** `allocate`: memory with any contents. */
  constructor(transport: Transport, allocate: (bytes: number) => Uint8Array) {
    this.#transport = transport;
    this.#allocate = allocate;
  }

  /** The place of the next `length` bytes, at most {@link SHARED_BYTES}, in `block`, which may be another one now. */
  claim(length: number): number {
    if (this.#at + length > this.block.length) this.#nextBlock(length);
    const at = this.#at;
    this.#at = at + length;
    return at;
  }

  /** Gives the last claim back from `start` on. */
  unclaim(start: number): void {
    this.#at = start;
    if (this.#sendFrom > start) this.#sendFrom = start;
  }

  /** The last claim is finished later: it must not be sent with what surrounds it. */
  setAside(start: number): ReplyRoom {
    if (start > this.#sendFrom) this.#send(this.block.subarray(this.#sendFrom, start));
    this.#sendFrom = this.#at;
    this.#use.late += 1;
    return { block: this.block, view: this.view, start, length: this.#at - start, use: this.#use };
  }

  /** Room for a reply of any length in a block of its own. */
  apart(length: number): ReplyRoom {
    const block = this.#allocate(length);
    return { block, view: viewOf(block), start: 0, length, use: undefined };
  }

  /** Sends `length` bytes from `from` of a room, behind everything finished so far. */
  sendPart(room: ReplyRoom, from: number, length: number): void {
    this.flush();
    this.#send(room.block.subarray(from, from + length));
  }

  /** Sends a whole room and gives its memory back. */
  send(room: ReplyRoom): void {
    this.sendPart(room, room.start, room.length);
    this.release(room);
  }

  /** Nothing more of the room will be sent. */
  release(room: ReplyRoom): void {
    const { use } = room;
    if (use !== undefined) {
      use.late -= 1;
      if (!use.full || use.late > 0) return;
    }
    this.#release(room.block);
  }

  /** From now on, only {@link sendPiece} sends. */
  beginPieces(): void {
    this.flush();
    this.#kept = [];
  }

  /** Sends the next piece: a whole room. */
  sendPiece(room: ReplyRoom): void {
    this.#transport.send(room.block.subarray(room.start, room.start + room.length));
    this.#transport.release?.(room.block);
  }

  /** The last piece was sent: what was kept back follows. */
  endPieces(): void {
    const kept = this.#kept ?? [];
    this.#kept = undefined;
    for (const step of kept) step();
  }

  /** Pieces are being sent. */
  get inPieces(): boolean {
    return this.#kept !== undefined;
  }

  /** Sends what is finished. */
  flush(): void {
    if (this.#at === this.#sendFrom) return;
    const bytes = this.block.subarray(this.#sendFrom, this.#at);
    this.#sendFrom = this.#at;
    this.#send(bytes);
  }

  #send(bytes: Uint8Array): void {
    if (this.#kept === undefined) this.#transport.send(bytes);
    else this.#kept.push(() => this.#transport.send(bytes));
  }

  #release(block: Uint8Array): void {
    if (this.#kept === undefined) this.#transport.release?.(block);
    else this.#kept.push(() => this.#transport.release?.(block));
  }

  #nextBlock(length: number): void {
    this.flush();
    // Smaller ones are a connection's first few only.
    if (this.block.length === LARGEST_BLOCK_BYTES) {
      this.#use.full = true;
      if (this.#use.late === 0) this.#release(this.block);
    }
    const next = Math.max(FIRST_BLOCK_BYTES, 4 * this.block.length, length);
    this.block = this.#allocate(Math.min(next, LARGEST_BLOCK_BYTES));
    this.view = viewOf(this.block);
    this.#at = 0;
    this.#sendFrom = 0;
    this.#use = { late: 0, full: false };
  }
}
