/** One command from the host: the fields of its submission queue entry, and the way back for its completion. */
import type { Namespace } from "./namespace.js";
import type { InjectedFault } from "./namespace-faults.js";
import { ALL_NAMESPACES } from "./opcodes.js";

/** Byte offsets in a submission queue entry. */
const SQE = {
  opcode: 0,
  flags: 1,
  commandId: 2,
  nsid: 4,
  sglAddress: 24,
  sglLength: 32,
  sglType: 39,
  dword10: 40,
  dword11: 44,
  dword12: 48,
  dword13: 52,
  dword14: 56,
  dword15: 60,
} as const;

/** SGL descriptor types, type and subtype in one byte. */
export const SGL = {
  /** Data block with an offset into the capsule. */
  inCapsule: 0x01,
  /** Data that the transport moves: C2HData, or H2CData after an R2T. */
  transport: 0x5a,
} as const;

/** Who sends the replies of commands. A command knows it as the queue it came from. */
export interface CommandQueue {
  /** Ends a command without data for the host. `low` and `high`: dwords 0 and 1 of the completion. */
  complete(command: Command, status: number, low?: number, high?: number): void;
  /**
   * Room for `length` bytes of data for the host, uninitialized. Exactly one of `completeWithReply` and `complete` must
   * follow; the latter drops the room.
   */
  reply(command: Command, length: number): Uint8Array;
  /** Tells of memory, in bytes, that a command needs until it is completed: with much of it in use no other is started. */
  hold(command: Command, bytes: number): void;
  /** Ends a command with success and the data in its room. */
  completeWithReply(command: Command): void;
}

/**
 * The object is used again for another command once it was completed, so nothing may keep it longer.
 * Fields of 64 bits may be rounded when above 2^53; none that is valid is.
 */
export class Command {
  readonly queue: CommandQueue;
  opcode = 0;
  flags = 0;
  id = 0;
  nsid = 0;
  sglLength = 0;
  sglType = 0;
  /** Low half of the SGL address: the offset of in-capsule data. */
  sglOffset = 0;
  sglOffsetHigh = 0;
  dword10 = 0;
  dword11 = 0;
  dword12 = 0;
  dword13 = 0;
  dword14 = 0;
  dword15 = 0;
  /** Data of the host, complete; undefined until it has come, and for commands without any. */
  data: Uint8Array | undefined = undefined;
  /** A digest of the host's data was wrong. */
  damaged = false;
  /** Completed: nothing more may be done with it. */
  done = false;
  /** It did not end at once, so the queue keeps account of it. */
  pending = false;
  /** The namespace of an I/O command. */
  namespace: Namespace | undefined = undefined;
  /** What an administrator wants to happen to the command. */
  fault: InjectedFault | undefined = undefined;
  /** Bytes that it told the queue of by `hold`. */
  held = 0;
  /** Where the data for the host is being put. Owned by the queue. */
  room: ReplyRoom | undefined = undefined;

  constructor(queue: CommandQueue) {
    this.queue = queue;
  }

  /** Takes the fields of the entry at `at`. */
  decode(view: DataView, at: number): void {
    this.opcode = view.getUint8(at + SQE.opcode);
    this.flags = view.getUint8(at + SQE.flags);
    this.id = view.getUint16(at + SQE.commandId, true);
    this.nsid = view.getUint32(at + SQE.nsid, true);
    this.sglOffset = view.getUint32(at + SQE.sglAddress, true);
    this.sglOffsetHigh = view.getUint32(at + SQE.sglAddress + 4, true);
    this.sglLength = view.getUint32(at + SQE.sglLength, true);
    this.sglType = view.getUint8(at + SQE.sglType);
    this.dword10 = view.getUint32(at + SQE.dword10, true);
    this.dword11 = view.getUint32(at + SQE.dword11, true);
    this.dword12 = view.getUint32(at + SQE.dword12, true);
    this.dword13 = view.getUint32(at + SQE.dword13, true);
    this.dword14 = view.getUint32(at + SQE.dword14, true);
    this.dword15 = view.getUint32(at + SQE.dword15, true);
    this.data = undefined;
    this.damaged = false;
    this.done = false;
    this.pending = false;
    this.namespace = undefined;
    this.fault = undefined;
    this.held = 0;
    this.room = undefined;
  }

  /** Dwords 10 and 11 as one number: the first block of I/O commands. */
  get startingBlock(): number {
    return this.dword11 * 0x1_0000_0000 + this.dword10;
  }

  /** Blocks of an I/O command: dword 12, bits 15:0, which count from 0. */
  get blockCount(): number {
    return (this.dword12 & 0xffff) + 1;
  }

  /** Force unit access: dword 12, bit 30. */
  get forceUnitAccess(): boolean {
    return (this.dword12 & (1 << 30)) !== 0;
  }

  /** FCTYPE of a Fabrics command, which stands where others have the NSID. */
  get fabricsType(): number {
    return this.nsid & 0xff;
  }

  get addressesAllNamespaces(): boolean {
    return this.nsid === ALL_NAMESPACES;
  }
}

/** Who still needs the memory of a block that replies share. */
export interface BlockUse {
  /** Replies that have room in it and are not finished. */
  open: number;
  /** Another one is being filled. */
  full: boolean;
}

/** A place in the bytes that will be sent. */
export interface ReplyRoom {
  /** Whole memory block that the place is in. */
  readonly block: Uint8Array;
  readonly view: DataView;
  /** First byte of the place, where the PDU header goes. */
  readonly start: number;
  /** Bytes from `start` to the end of data, digests and a completion included. */
  readonly length: number;
  readonly dataStart: number;
  readonly dataLength: number;
  /** `undefined`: the block is this reply's alone. */
  readonly use: BlockUse | undefined;
}
