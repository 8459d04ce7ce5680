/**
 * Builds the PDUs that go to the host, in large blocks of memory, so that what one turn produces leaves in one piece.
 *
 * A block is filled from front to back. Replies that are finished when the next one begins are sent together with
 * it; a reply that waits for the device has its place in the block and is sent alone later.
 */
import type { Crc32c } from "../../../codec/crc32c.js";
import type { BlockUse, Command, ReplyRoom } from "../command.js";
import { statusField } from "../status.js";
import type { Transport } from "../transport.js";
import type { ConnectionParameters } from "./initialize.js";
import { COMMON, DATA, DIGEST_LENGTH, HEADER_LENGTH, PDU, PDU_FLAG } from "./pdu-format.js";

/** Byte offsets in a completion queue entry. */
const CQE = { low: 0, high: 4, head: 8, queue: 10, commandId: 12, status: 14, length: 16 } as const;

/**
 * Bytes of a block of memory: the first one is small, since many connections idle; later ones grow to where they spare
 * allocations and a late reply still keeps little alive.
 */
const FIRST_BLOCK_BYTES = 4 * 1024;
const LARGEST_BLOCK_BYTES = 256 * 1024;
/** Replies above this get a block of their own. */
const SHARED_BYTES = 64 * 1024;

/** SQHD of a queue without flow control (NVMe base, "Submission Queue Flow Control"). */
const NO_FLOW_CONTROL = 0xffff;

export interface OutboxOptions {
  readonly transport: Transport;
  readonly crc: Crc32c;
  /** Memory for replies; need not be zeroed. */
  readonly allocate: (bytes: number) => Uint8Array;
}

export class Outbox {
  readonly #transport: Transport;
  readonly #crc: Crc32c;
  readonly #allocate: (bytes: number) => Uint8Array;
  #headerDigest = 0;
  #dataDigest = 0;
  #hostAlignment = 4;
  /** Entries of the queue; 0 while SQ flow control is off or no queue is connected. */
  #entries = 0;
  #head = 0;
  #queueId = 0;
  #successFlag = false;
  #block: Uint8Array;
  #view: DataView;
  /** Finished and unsent: [sendFrom, at) of the block. */
  #sendFrom = 0;
  #at = 0;
  #use: BlockUse = { open: 0, full: false };

  constructor(options: OutboxOptions) {
    this.#transport = options.transport;
    this.#crc = options.crc;
    this.#allocate = options.allocate;
    this.#block = new Uint8Array(0);
    this.#view = new DataView(this.#block.buffer);
  }

  set parameters(parameters: ConnectionParameters) {
    this.#headerDigest = parameters.headerDigest ? DIGEST_LENGTH : 0;
    this.#dataDigest = parameters.dataDigest ? DIGEST_LENGTH : 0;
    this.#hostAlignment = parameters.hostAlignment;
  }

  /** From now on completions are those of this queue. Without flow control, success may ride on data. */
  connectQueue(queueId: number, entries: number, flowControl: boolean): void {
    this.#queueId = queueId;
    this.#entries = flowControl ? entries : 0;
    this.#successFlag = !flowControl;
  }

  /** Sends what is finished. */
  flush(): void {
    if (this.#at === this.#sendFrom) return;
    const bytes = this.#block.subarray(this.#sendFrom, this.#at);
    this.#sendFrom = this.#at;
    this.#transport.send(bytes);
  }

  /** A CapsuleResp. Left in the block until `flush`. */
  respond(commandId: number, status: number, low: number, high: number): void {
    const at = this.#claim(HEADER_LENGTH.capsuleResponse + this.#headerDigest);
    this.#writeResponse(this.#block, this.#view, at, commandId, status, low, high);
  }

  /** An R2T for the bytes [offset, offset + length) of a command's data. Left in the block until `flush`. */
  requestData(commandId: number, transferTag: number, offset: number, length: number): void {
    const total = HEADER_LENGTH.r2t + this.#headerDigest;
    const at = this.#claim(total);
    const view = this.#view;
    this.#writeCommon(view, at, PDU.r2t, this.#headerFlag, HEADER_LENGTH.r2t, 0, total);
    view.setUint16(at + DATA.commandId, commandId, true);
    view.setUint16(at + DATA.transferTag, transferTag, true);
    view.setUint32(at + DATA.offset, offset, true);
    view.setUint32(at + DATA.length, length, true);
    view.setUint32(at + 20, 0, true);
    this.#sealHeader(this.#block, view, at, HEADER_LENGTH.r2t);
  }

  /** Room for the data of a reply, with its header before and its completion behind. */
  reserve(dataLength: number): ReplyRoom {
    const header = HEADER_LENGTH.data + this.#headerDigest;
    const dataOffset = header + ((this.#hostAlignment - (header % this.#hostAlignment)) % this.#hostAlignment);
    const response = this.#successFlag ? 0 : HEADER_LENGTH.capsuleResponse + this.#headerDigest;
    const length = dataOffset + dataLength + this.#dataDigest + response;
    if (length > SHARED_BYTES) {
      const block = this.#allocate(length);
      return { block, view: viewOf(block), start: 0, length, dataStart: dataOffset, dataLength, use: undefined };
    }
    const start = this.#claim(length);
    const use = this.#use;
    use.open += 1;
    return { block: this.#block, view: this.#view, start, length, dataStart: start + dataOffset, dataLength, use };
  }

  /** Completes a reply whose data is in its room, with success. */
  finish(command: Command, room: ReplyRoom): void {
    const { block, view, start, dataStart, dataLength } = room;
    const pduLength = dataStart - start + dataLength + this.#dataDigest;
    const flags =
      this.#headerFlag |
      (this.#dataDigest > 0 ? PDU_FLAG.dataDigest : 0) |
      PDU_FLAG.last |
      (this.#successFlag ? PDU_FLAG.success : 0);
    this.#writeCommon(view, start, PDU.c2hData, flags, HEADER_LENGTH.data, dataStart - start, pduLength);
    view.setUint16(start + DATA.commandId, command.id, true);
    view.setUint16(start + 10, 0, true);
    view.setUint32(start + DATA.offset, 0, true);
    view.setUint32(start + DATA.length, dataLength, true);
    view.setUint32(start + 20, 0, true);
    this.#sealHeader(block, view, start, HEADER_LENGTH.data);
    // Memory may hold anything: padding must not carry it to the host.
    block.fill(0, start + HEADER_LENGTH.data + this.#headerDigest, dataStart);
    if (this.#dataDigest > 0) {
      view.setUint32(dataStart + dataLength, this.#crc(block, dataStart, dataLength), true);
    }
    if (!this.#successFlag) this.#writeResponse(block, view, start + pduLength, command.id, 0, 0, 0);
    this.#send(room);
  }

  /**
   * Forgets a reply; its room is used again when nothing came behind it and it was not set aside. Otherwise the block counts
   * as in use for ever: a device that failed is not trusted to have left the memory alone.
   */
  drop({ block, start, length }: ReplyRoom): void {
    if (block !== this.#block || start < this.#sendFrom || start + length !== this.#at) return;
    this.#use.open -= 1;
    this.#at = start;
  }

  /**
   * The reply will be finished later, alone: what comes after it in the block must not be sent as one run with what
   * came before it.
   */
  setAside(room: ReplyRoom): void {
    if (room.block !== this.#block) return;
    if (room.start > this.#sendFrom) this.#transport.send(this.#block.subarray(this.#sendFrom, room.start));
    this.#sendFrom = room.start + room.length;
  }

  get #headerFlag(): number {
    return this.#headerDigest > 0 ? PDU_FLAG.headerDigest : 0;
  }

  /** A reply at the end of the run just makes the run longer; any other is sent by itself. */
  #send(room: ReplyRoom): void {
    const { block, start, use } = room;
    const inRun = block === this.#block && start >= this.#sendFrom;
    if (!inRun) this.#transport.send(block.subarray(start, start + room.length));
    if (use !== undefined) use.open -= 1;
    if (use === undefined || (use.full && use.open === 0)) this.#transport.release?.(block);
  }

  /** The next `length` bytes of the block, or of a new one. */
  #claim(length: number): number {
    if (this.#at + length > this.#block.length) this.#nextBlock(length);
    const at = this.#at;
    this.#at = at + length;
    return at;
  }

  /** Blocks of the full size go round; smaller ones are a connection's first few only. */
  #nextBlock(length: number): void {
    this.flush();
    if (this.#block.length === LARGEST_BLOCK_BYTES) {
      this.#use.full = true;
      if (this.#use.open === 0) this.#transport.release?.(this.#block);
    }
    const next = Math.max(FIRST_BLOCK_BYTES, 2 * this.#block.length, length);
    this.#block = this.#allocate(Math.min(next, LARGEST_BLOCK_BYTES));
    this.#view = viewOf(this.#block);
    this.#at = 0;
    this.#sendFrom = 0;
    this.#use = { open: 0, full: false };
  }

  #writeResponse(
    block: Uint8Array,
    view: DataView,
    at: number,
    commandId: number,
    status: number,
    low: number,
    high: number,
  ): void {
    const total = HEADER_LENGTH.capsuleResponse + this.#headerDigest;
    this.#writeCommon(view, at, PDU.capsuleResponse, this.#headerFlag, HEADER_LENGTH.capsuleResponse, 0, total);
    const entry = at + HEADER_LENGTH.common;
    view.setUint32(entry + CQE.low, low, true);
    view.setUint32(entry + CQE.high, high, true);
    view.setUint16(entry + CQE.head, this.#nextHead(), true);
    view.setUint16(entry + CQE.queue, this.#queueId, true);
    view.setUint16(entry + CQE.commandId, commandId, true);
    view.setUint16(entry + CQE.status, statusField(status), true);
    this.#sealHeader(block, view, at, HEADER_LENGTH.capsuleResponse);
  }

  /** Every completion frees one entry of the submission queue. */
  #nextHead(): number {
    if (this.#entries === 0) return this.#successFlag ? NO_FLOW_CONTROL : 0;
    this.#head = this.#head + 1 === this.#entries ? 0 : this.#head + 1;
    return this.#head;
  }

  #writeCommon(
    view: DataView,
    at: number,
    type: number,
    flags: number,
    headerLength: number,
    dataOffset: number,
    pduLength: number,
  ): void {
    view.setUint8(at, type);
    view.setUint8(at + COMMON.flags, flags);
    view.setUint8(at + COMMON.headerLength, headerLength);
    view.setUint8(at + COMMON.dataOffset, dataOffset);
    view.setUint32(at + COMMON.pduLength, pduLength, true);
  }

  #sealHeader(block: Uint8Array, view: DataView, at: number, length: number): void {
    if (this.#headerDigest > 0) view.setUint32(at + length, this.#crc(block, at, length), true);
  }
}

function viewOf(block: Uint8Array): DataView {
  return new DataView(block.buffer, block.byteOffset, block.byteLength);
}
