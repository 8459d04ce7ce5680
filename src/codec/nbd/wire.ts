/**
 * Numbers and layouts of the NBD protocol (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md), shared by
 * both ends. All fields are big endian.
 */

/** "NBDMAGIC", "IHAVEOPT" and the magics of replies, as two 32-bit halves where they have 64 bits. */
export const MAGIC = {
  greetingHigh: 0x4e42444d,
  greetingLow: 0x41474943,
  optionHigh: 0x49484156,
  optionLow: 0x454f5054,
  optionReplyHigh: 0x0003e889,
  optionReplyLow: 0x045565a9,
  /** Second word of the greeting of servers of before 2009. */
  oldStyleHigh: 0x00004202,
  oldStyleLow: 0x81861253,
  request: 0x25609513,
  extendedRequest: 0x21e41c71,
  simpleReply: 0x67446698,
  structuredReply: 0x668e33ef,
  extendedReply: 0x6e8a278c,
} as const;

/** Flags of both sides in the greeting. */
export const HANDSHAKE = { fixedNewstyle: 1, noZeroes: 2 } as const;

export const OPTION = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const;

const REFUSAL = 0x8000_0000;

/** Types of replies to options. */
export const OPTION_REPLY = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  unsupported: REFUSAL + 1,
  policy: REFUSAL + 2,
  invalid: REFUSAL + 3,
  platform: REFUSAL + 4,
  tlsRequired: REFUSAL + 5,
  unknownExport: REFUSAL + 6,
  shutdown: REFUSAL + 7,
  blockSizeRequired: REFUSAL + 8,
  tooBig: REFUSAL + 9,
  extendedHeadersRequired: REFUSAL + 10,
} as const;

/** True for the types of replies that refuse an option. */
export function isRefusal(replyType: number): boolean {
  return replyType >= REFUSAL;
}

/** Kinds of information about an export. */
export const INFO = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

/** Transmission flags: what an export can do. */
export const EXPORT_FLAG = {
  hasFlags: 0x1,
  readOnly: 0x2,
  flush: 0x4,
  fua: 0x8,
  rotational: 0x10,
  trim: 0x20,
  writeZeroes: 0x40,
  dontFragment: 0x80,
  multiConnection: 0x100,
  /** Reserved by the protocol for an extension that was never finished; see docs/protocols.md for what we mean by it. */
  resize: 0x200,
  cache: 0x400,
  fastZero: 0x800,
} as const;

export const COMMAND = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
  /** The new size is in the place of the offset, and the length is 0. */
  resize: 8,
} as const;

export const COMMAND_FLAG = {
  fua: 1,
  noHole: 2,
  dontFragment: 4,
  oneExtent: 8,
  fastZero: 16,
  payloadLength: 32,
} as const;

/** A chunk with this flag is the last of its reply. */
export const CHUNK_DONE = 1;

export const CHUNK = {
  none: 0,
  data: 1,
  hole: 2,
  blockStatus: 5,
  extendedBlockStatus: 6,
  error: 0x8001,
  errorWithOffset: 0x8002,
} as const;

/** Bytes. */
export const LENGTH = {
  greeting: 18,
  clientFlags: 4,
  optionHeader: 16,
  optionReplyHeader: 20,
  /** Size and flags behind the name of an export chosen the old way, and zeros behind them unless both sides agree. */
  exportNameReply: 10,
  exportNamePadding: 124,
  request: 28,
  extendedRequest: 32,
  simpleReply: 16,
  structuredReply: 20,
  extendedReply: 32,
  /** The offset in front of the data of a data chunk. */
  chunkOffset: 8,
} as const;

/** Byte offsets in a request of either form. */
export const REQUEST = { magic: 0, flags: 4, type: 6, cookie: 8, offset: 16, length: 24 } as const;

/** Byte offsets in the header of a structured or extended reply. */
export const REPLY = {
  magic: 0,
  flags: 4,
  type: 6,
  cookie: 8,
  length: 16,
  extendedOffset: 16,
  extendedLength: 24,
} as const;

/** Bytes of the longest string (names, descriptions, queries) that the protocol allows. */
export const STRING_BYTES = 4096;

/** Bits of the `base:allocation` metadata context. */
export const ALLOCATION = { hole: 1, zero: 2 } as const;

/** What the protocol calls an errno, by name and number. */
export const ERROR_NUMBER = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

export type NbdErrorName = keyof typeof ERROR_NUMBER;

const TWO_32 = 0x1_0000_0000;
const LARGEST_HIGH_WORD = 0x1f_ffff;

/** An unsigned 64-bit field; `Infinity` above 2^53 - 1, which no comparison takes for a valid position. */
export function readU64(view: DataView, at: number): number {
  const high = view.getUint32(at);
  return high > LARGEST_HIGH_WORD ? Number.POSITIVE_INFINITY : high * TWO_32 + view.getUint32(at + 4);
}
