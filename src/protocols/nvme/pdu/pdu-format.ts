/** Numbers of the NVMe/TCP transport: PDU types, flags, header lengths and fatal errors (NVMe/TCP, "PDUs"). All little-endian. */

export const PDU = {
  icReq: 0x00,
  icResp: 0x01,
  h2cTermReq: 0x02,
  c2hTermReq: 0x03,
  capsuleCommand: 0x04,
  capsuleResponse: 0x05,
  h2cData: 0x06,
  c2hData: 0x07,
  r2t: 0x09,
} as const;

export const PDU_FLAG = {
  headerDigest: 1 << 0,
  dataDigest: 1 << 1,
  /** H2CData, C2HData: the last PDU of the transfer. */
  last: 1 << 2,
  /** C2HData: stands for a successful CapsuleResp as well. */
  success: 1 << 3,
} as const;

/** Header lengths (HLEN), bytes, digests not counted. */
export const HEADER_LENGTH = {
  common: 8,
  initialize: 128,
  terminate: 24,
  capsuleCommand: 72,
  capsuleResponse: 24,
  data: 24,
  r2t: 24,
} as const;

export const DIGEST_LENGTH = 4;

/** Bytes of an H2CTermReq or C2HTermReq with the header that it complains about. */
export const TERMINATE_LENGTH_MAX = 152;

/** Byte offsets in the common header. */
export const COMMON = { type: 0, flags: 1, headerLength: 2, dataOffset: 3, pduLength: 4 } as const;

/** Byte offsets in the header of H2CData and C2HData; R2T has its offset and length at the same places. */
export const DATA = { commandId: 8, transferTag: 10, offset: 12, length: 16 } as const;

/** Fatal Error Status of a termination request. */
export const FATAL = {
  /** FEI: byte offset of the field. */
  invalidHeaderField: 1,
  sequence: 2,
  /** FEI: the digest that was received. */
  headerDigest: 3,
  dataOutOfRange: 4,
  limitExceeded: 5,
  /** FEI: byte offset of the parameter. */
  unsupportedParameter: 6,
} as const;

export type FatalErrorStatus = (typeof FATAL)[keyof typeof FATAL];

/** A connection that broke the rules of the transport: it ends with a termination request that carries these. */
export class PduError extends Error {
  override readonly name = "PduError";
  readonly fes: FatalErrorStatus;
  /** Fatal Error Information, 32 bits. */
  readonly fei: number;

  constructor(fes: FatalErrorStatus, fei: number, message: string) {
    super(message);
    this.fes = fes;
    this.fei = fei;
  }
}
