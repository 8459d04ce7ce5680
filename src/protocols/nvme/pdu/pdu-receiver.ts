/**
 * Cuts the byte stream of a host into PDUs. What lies whole in a chunk is parsed in place; only what is cut by its
 * end is copied. The data of H2CData PDUs goes straight to where the command wants it.
 *
 * Every length is checked before a byte of the PDU is waited for: nobody can make the receiver hold more than one
 * command capsule.
 */
import type { Crc32c } from "../../../codec/crc32c.js";
import type { ConnectionParameters } from "./initialize.js";
import {
  COMMON,
  DATA,
  DIGEST_LENGTH,
  FATAL,
  HEADER_LENGTH,
  PDU,
  PDU_FLAG,
  PduError,
  TERMINATE_LENGTH_MAX,
} from "./pdu-format.js";

/** A command capsule with the bytes of its data, all valid during the call only. */
export interface Capsule {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** First byte of the submission queue entry. */
  readonly entry: number;
  readonly dataStart: number;
  readonly dataLength: number;
  /** The digest of the data, when there is one, is right. */
  readonly intact: boolean;
}

/** Who acts on PDUs. Each call may throw `PduError`. */
export interface PduHandler {
  initialize(view: DataView, at: number): void;
  capsule(capsule: Capsule): void;
  /** Checks an H2CData header and returns the room for its data, exactly DATAL bytes. */
  dataBegins(commandId: number, transferTag: number, offset: number, length: number, last: boolean): Uint8Array;
  /** All of the data that began last has come. `intact`: its digest, when there is one, is right. */
  dataEnds(intact: boolean): void;
  terminated(view: DataView, at: number): void;
}

/** Bytes kept of the PDU that broke the rules, for the termination request. */
const OFFENDER_LENGTH = TERMINATE_LENGTH_MAX - HEADER_LENGTH.terminate;

export class PduReceiver {
  readonly #handler: PduHandler;
  readonly #crc: Crc32c;
  readonly #h2cDataBytes: number;
  #parameters: ConnectionParameters | undefined = undefined;
  /** Largest CapsuleCmd, bytes of data. */
  #capsuleDataBytes: number;
  /** The start of a PDU whose end has not come. */
  #held: Uint8Array;
  #heldView: DataView;
  #heldLength = 0;
  #capsule: { -readonly [Field in keyof Capsule]: Capsule[Field] };
  // The H2CData PDU whose data is coming in.
  #room: Uint8Array | undefined = undefined;
  #roomFilled = 0;
  #digestMissing = 0;
  #digest = 0;
  #offender: Uint8Array | undefined = undefined;

  /** `capsuleDataBytes`: see `capsuleDataBytes=`. */
  constructor(handler: PduHandler, options: { crc: Crc32c; h2cDataBytes: number; capsuleDataBytes: number }) {
    this.#handler = handler;
    this.#crc = options.crc;
    this.#h2cDataBytes = options.h2cDataBytes;
    this.#capsuleDataBytes = options.capsuleDataBytes;
    this.#held = new Uint8Array(HEADER_LENGTH.initialize);
    this.#heldView = new DataView(this.#held.buffer);
    this.#capsule = {
      bytes: this.#held,
      view: this.#heldView,
      entry: 0,
      dataStart: 0,
      dataLength: 0,
      intact: true,
    };
  }

  /** What ICReq and ICResp agreed on; until it is set only an ICReq is taken. */
  set parameters(parameters: ConnectionParameters) {
    this.#parameters = parameters;
  }

  /** Bytes of in-capsule data from now on: it depends on the kind of queue. */
  set capsuleDataBytes(bytes: number) {
    this.#capsuleDataBytes = bytes;
  }

  /** The first bytes of the PDU that made `push` throw. */
  get offender(): Uint8Array {
    return this.#offender ?? new Uint8Array(0);
  }

  /**
   * Takes PDUs from `chunk` at `at` until it ends or `halted` tells to stop; returns where it stopped. Bytes of a PDU
   * that is not complete count as taken. Throws `PduError`.
   */
  push(chunk: Uint8Array, view: DataView, from: number, halted: () => boolean): number {
    let at = from;
    while (at < chunk.length && !halted()) {
      if (this.#room !== undefined) at = this.#takeData(chunk, at);
      else if (this.#heldLength > 0) at = this.#takeHeld(chunk, at);
      else at = this.#takeWhole(chunk, view, at);
    }
    return at;
  }

  #takeWhole(chunk: Uint8Array, view: DataView, at: number): number {
    const available = chunk.length - at;
    let length: number = HEADER_LENGTH.common;
    if (available >= length) {
      length = this.#unitLength(chunk, view, at);
      if (available >= length) {
        this.#act(chunk, view, at, length);
        return at + length;
      }
    }
    this.#hold(chunk, at, available, length);
    return chunk.length;
  }

  #takeHeld(chunk: Uint8Array, at: number): number {
    const known = this.#heldLength >= HEADER_LENGTH.common;
    const length = known ? this.#unitLength(this.#held, this.#heldView, 0) : HEADER_LENGTH.common;
    const taken = Math.min(length - this.#heldLength, chunk.length - at);
    this.#hold(chunk, at, taken, length);
    if (known && this.#heldLength === length) {
      this.#heldLength = 0;
      this.#act(this.#held, this.#heldView, 0, length);
    }
    return at + taken;
  }

  #hold(chunk: Uint8Array, at: number, count: number, expected: number): void {
    if (expected > this.#held.length) {
      const larger = new Uint8Array(expected);
      larger.set(this.#held.subarray(0, this.#heldLength));
      this.#held = larger;
      this.#heldView = new DataView(larger.buffer);
    }
    this.#held.set(chunk.subarray(at, at + count), this.#heldLength);
    this.#heldLength += count;
  }

  /** Bytes of the PDU at `at` that are looked at in one piece: all of it, but only the header of an H2CData PDU. */
  #unitLength(bytes: Uint8Array, view: DataView, at: number): number {
    try {
      return this.#checkedLength(bytes, view, at);
    } catch (error) {
      this.#keepOffender(bytes, at, HEADER_LENGTH.common);
      throw error;
    }
  }

  #checkedLength(bytes: Uint8Array, view: DataView, at: number): number {
    const type = bytes[at + COMMON.type] as number;
    const parameters = this.#parameters;
    if (type === PDU.h2cTermReq) return terminateLength(bytes, view, at);
    if (parameters === undefined) {
      if (type !== PDU.icReq) throw new PduError(FATAL.sequence, 0, `PDU of type ${type} before ICReq`);
      return initializeLength(bytes, view, at);
    }
    switch (type) {
      case PDU.capsuleCommand:
        return this.#capsuleLength(parameters, bytes, view, at);
      case PDU.h2cData:
        return this.#dataHeaderLength(parameters, bytes, view, at);
      case PDU.icReq:
        throw new PduError(FATAL.sequence, 0, "second ICReq");
      default:
        throw new PduError(FATAL.invalidHeaderField, COMMON.type, `PDU type ${type} is not one that hosts send`);
    }
  }

  #capsuleLength(parameters: ConnectionParameters, bytes: Uint8Array, view: DataView, at: number): number {
    requireHeaderLength(bytes, at, HEADER_LENGTH.capsuleCommand);
    this.#requireFlags(parameters, bytes, at, 0);
    const header = HEADER_LENGTH.capsuleCommand + (parameters.headerDigest ? DIGEST_LENGTH : 0);
    const length = view.getUint32(at + COMMON.pduLength, true);
    if (length === header) return length;
    const trailer = requireDataDigestFlag(parameters, bytes, at);
    const dataOffset = requireDataOffset(bytes, at, header);
    const data = length - dataOffset - trailer;
    if (data <= 0 || data > this.#capsuleDataBytes) {
      const text = `CapsuleCmd of ${length} bytes has ${data} bytes of data; the limit is ${this.#capsuleDataBytes}`;
      throw new PduError(FATAL.invalidHeaderField, COMMON.pduLength, text);
    }
    return length;
  }

  #dataHeaderLength(parameters: ConnectionParameters, bytes: Uint8Array, view: DataView, at: number): number {
    requireHeaderLength(bytes, at, HEADER_LENGTH.data);
    this.#requireFlags(parameters, bytes, at, PDU_FLAG.last);
    const header = HEADER_LENGTH.data + (parameters.headerDigest ? DIGEST_LENGTH : 0);
    const dataOffset = requireDataOffset(bytes, at, header);
    const trailer = requireDataDigestFlag(parameters, bytes, at);
    const length = view.getUint32(at + COMMON.pduLength, true);
    const data = length - dataOffset - trailer;
    if (data <= 0) {
      throw new PduError(FATAL.invalidHeaderField, COMMON.pduLength, `H2CData of ${length} bytes has no data`);
    }
    if (data > this.#h2cDataBytes) {
      const text = `H2CData carries ${data} bytes; MAXH2CDATA is ${this.#h2cDataBytes}`;
      throw new PduError(FATAL.limitExceeded, 0, text);
    }
    return dataOffset;
  }

  #requireFlags(parameters: ConnectionParameters, bytes: Uint8Array, at: number, others: number): void {
    const flags = bytes[at + COMMON.flags] as number;
    const digests =
      (parameters.headerDigest ? PDU_FLAG.headerDigest : 0) | (parameters.dataDigest ? PDU_FLAG.dataDigest : 0);
    const headerDigestMissing = parameters.headerDigest && (flags & PDU_FLAG.headerDigest) === 0;
    if ((flags & ~(digests | others)) === 0 && !headerDigestMissing) return;
    throw new PduError(FATAL.invalidHeaderField, COMMON.flags, `PDU flags ${flags} do not fit the digests agreed on`);
  }

  #act(bytes: Uint8Array, view: DataView, at: number, length: number): void {
    try {
      this.#dispatch(bytes, view, at, length);
    } catch (error) {
      this.#keepOffender(bytes, at, bytes[at + COMMON.headerLength] as number);
      throw error;
    }
  }

  #dispatch(bytes: Uint8Array, view: DataView, at: number, length: number): void {
    const type = bytes[at + COMMON.type];
    if (type === PDU.icReq) {
      this.#handler.initialize(view, at);
      return;
    }
    if (type === PDU.h2cTermReq) {
      this.#handler.terminated(view, at);
      return;
    }
    this.#checkHeaderDigest(bytes, view, at);
    if (type === PDU.capsuleCommand) this.#actOnCapsule(bytes, view, at, length);
    else this.#actOnDataHeader(bytes, view, at, length);
  }

  #checkHeaderDigest(bytes: Uint8Array, view: DataView, at: number): void {
    if (this.#parameters?.headerDigest !== true) return;
    const length = bytes[at + COMMON.headerLength] as number;
    const stored = view.getUint32(at + length, true);
    if (this.#crc(bytes, at, length) === stored) return;
    throw new PduError(FATAL.headerDigest, stored, "the header digest is wrong");
  }

  #actOnCapsule(bytes: Uint8Array, view: DataView, at: number, length: number): void {
    const capsule = this.#capsule;
    const parameters = this.#parameters as ConnectionParameters;
    const header = HEADER_LENGTH.capsuleCommand + (parameters.headerDigest ? DIGEST_LENGTH : 0);
    capsule.bytes = bytes;
    capsule.view = view;
    capsule.entry = at + HEADER_LENGTH.common;
    capsule.dataLength = 0;
    capsule.intact = true;
    if (length > header) {
      const digested = parameters.dataDigest;
      const dataOffset = bytes[at + COMMON.dataOffset] as number;
      capsule.dataStart = at + dataOffset;
      capsule.dataLength = length - dataOffset - (digested ? DIGEST_LENGTH : 0);
      if (digested) {
        const stored = view.getUint32(at + length - DIGEST_LENGTH, true);
        capsule.intact = this.#crc(bytes, capsule.dataStart, capsule.dataLength) === stored;
      }
    }
    this.#handler.capsule(capsule);
  }

  #actOnDataHeader(bytes: Uint8Array, view: DataView, at: number, unitLength: number): void {
    const trailer = this.#parameters?.dataDigest === true ? DIGEST_LENGTH : 0;
    const carried = view.getUint32(at + COMMON.pduLength, true) - unitLength - trailer;
    const length = view.getUint32(at + DATA.length, true);
    if (length !== carried) {
      const text = `H2CData says ${length} bytes of data and carries ${carried}`;
      throw new PduError(FATAL.invalidHeaderField, DATA.length, text);
    }
    const last = ((bytes[at + COMMON.flags] as number) & PDU_FLAG.last) !== 0;
    const tag = view.getUint16(at + DATA.transferTag, true);
    const offset = view.getUint32(at + DATA.offset, true);
    this.#room = this.#handler.dataBegins(view.getUint16(at + DATA.commandId, true), tag, offset, length, last);
    this.#roomFilled = 0;
    this.#digestMissing = trailer;
    this.#digest = 0;
  }

  #takeData(chunk: Uint8Array, from: number): number {
    const room = this.#room as Uint8Array;
    let at = from;
    const taken = Math.min(room.length - this.#roomFilled, chunk.length - at);
    if (taken > 0) {
      room.set(chunk.subarray(at, at + taken), this.#roomFilled);
      this.#roomFilled += taken;
      at += taken;
    }
    if (this.#roomFilled < room.length) return at;
    const digested = this.#digestMissing > 0;
    while (this.#digestMissing > 0 && at < chunk.length) {
      this.#digest |= (chunk[at] as number) << (8 * (DIGEST_LENGTH - this.#digestMissing));
      this.#digestMissing -= 1;
      at += 1;
    }
    if (this.#digestMissing > 0) return at;
    this.#room = undefined;
    this.#handler.dataEnds(!digested || this.#crc(room, 0, room.length) === this.#digest >>> 0);
    return at;
  }

  #keepOffender(bytes: Uint8Array, at: number, length: number): void {
    this.#offender = bytes.slice(at, Math.min(at + Math.min(length, OFFENDER_LENGTH), bytes.length));
  }
}

/** Bytes of the digest behind the data of a PDU, which must be announced exactly when it was agreed on. */
function requireDataDigestFlag(parameters: ConnectionParameters, bytes: Uint8Array, at: number): number {
  if (!parameters.dataDigest) return 0;
  if (((bytes[at + COMMON.flags] as number) & PDU_FLAG.dataDigest) !== 0) return DIGEST_LENGTH;
  throw new PduError(FATAL.invalidHeaderField, COMMON.flags, "PDU carries data without the digest agreed on");
}

function requireHeaderLength(bytes: Uint8Array, at: number, expected: number): void {
  const length = bytes[at + COMMON.headerLength] as number;
  if (length === expected) return;
  const text = `PDU of type ${bytes[at]} has HLEN ${length} instead of ${expected}`;
  throw new PduError(FATAL.invalidHeaderField, COMMON.headerLength, text);
}

/** Without padding asked for (CPDA 0), data starts right behind the header. */
function requireDataOffset(bytes: Uint8Array, at: number, header: number): number {
  const offset = bytes[at + COMMON.dataOffset] as number;
  if (offset === header) return offset;
  throw new PduError(FATAL.invalidHeaderField, COMMON.dataOffset, `PDU has PDO ${offset} instead of ${header}`);
}

function initializeLength(bytes: Uint8Array, view: DataView, at: number): number {
  requireHeaderLength(bytes, at, HEADER_LENGTH.initialize);
  const length = view.getUint32(at + COMMON.pduLength, true);
  if (length === HEADER_LENGTH.initialize) return length;
  throw new PduError(FATAL.invalidHeaderField, COMMON.pduLength, `ICReq has PLEN ${length}`);
}

function terminateLength(bytes: Uint8Array, view: DataView, at: number): number {
  requireHeaderLength(bytes, at, HEADER_LENGTH.terminate);
  const length = view.getUint32(at + COMMON.pduLength, true);
  if (length >= HEADER_LENGTH.terminate && length <= TERMINATE_LENGTH_MAX) return length;
  throw new PduError(FATAL.invalidHeaderField, COMMON.pduLength, `H2CTermReq has PLEN ${length}`);
}
