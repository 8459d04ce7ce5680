import type { Qcow2Geometry } from "./geometry.js";

/**
 * L1 and L2 table entries (qcow2 specification, "Cluster mapping"), big-endian 64-bit words.
 *
 * Accessors on the two 32-bit halves of an entry: they allocate nothing and serve every request. Runs of entries are decoded
 * into a discriminated union by the mapping.
 * Standard entry: 0 zero flag (version 3), 9..55 host offset, 62 compressed, 63 copied; the rest reserved.
 */

const TWO_32 = 0x1_0000_0000;
/** Bit 63: the cluster or table has exactly one reference, so it may be written in place. */
export const COPIED_HIGH = 0x8000_0000;
const COMPRESSED_HIGH = 0x4000_0000;
/** Bit 0: reads as zeros. */
export const ZERO_LOW = 0x1;
const OFFSET_HIGH = 0x00ff_ffff;
/** Bits 53..55 of an offset: valid in the format, but no file is that long and a double cannot count its bytes. */
const UNSAFE_OFFSET_HIGH = 0x00e0_0000;
/** Bits 56..61 of a standard L2 entry are reserved. */
const L2_RESERVED_HIGH = 0x3f00_0000;
/** Bits 56..62 of an L1 entry are reserved. */
const L1_RESERVED_HIGH = 0x7f00_0000;

export const L2_UNALLOCATED = 0;
/** Reads as zeros, no host cluster. */
export const L2_ZERO = 1;
/** Reads as zeros, and a host cluster is reserved at `l2Offset`. */
export const L2_ZERO_PREALLOCATED = 2;
export const L2_DATA = 3;
export const L2_COMPRESSED = 4;
/** Reserved bits are set, or the offset is misaligned or above 2^53. */
export const L2_CORRUPT = 5;
export type L2Kind = 0 | 1 | 2 | 3 | 4 | 5;

/** Low-half bits that must be zero in a standard L2 entry of this image; compute once, pass to `l2Kind`. */
export function l2ReservedLow(geometry: Pick<Qcow2Geometry, "version" | "clusterSize">): number {
  return geometry.version === 2 ? geometry.clusterSize - 1 : geometry.clusterSize - 1 - ZERO_LOW;
}

/**
 * What an L2 entry is. Compressed entries are judged by `compressedIsCorrupt`, which needs the cluster size. Offset 0 means
 * nothing in an image file, which begins with its header; in external data the copied flag tells that there is data at 0.
 */
export function l2Kind(high: number, low: number, reservedLow: number, externalData = false): L2Kind {
  if ((high & COMPRESSED_HIGH) !== 0) return L2_COMPRESSED;
  if ((low & reservedLow) !== 0 || (high & (L2_RESERVED_HIGH | UNSAFE_OFFSET_HIGH)) !== 0) return L2_CORRUPT;
  const empty = (high & OFFSET_HIGH) === 0 && (low & ~ZERO_LOW) === 0;
  if ((low & ZERO_LOW) !== 0) return empty ? L2_ZERO : L2_ZERO_PREALLOCATED;
  return empty && !(externalData && isCopied(high)) ? L2_UNALLOCATED : L2_DATA;
}

/** Host offset of a standard L2 entry that is not corrupt; 0 = none. */
export function l2Offset(high: number, low: number): number {
  return (high & OFFSET_HIGH) * TWO_32 + ((low & ~0x1ff) >>> 0);
}

export function isCopied(high: number): boolean {
  return (high & COPIED_HIGH) !== 0;
}

/** Upper half of an L1 or standard L2 entry for `offset` (bytes, below 2^53). */
export function entryHigh(offset: number, copied: boolean): number {
  const high = Math.floor(offset / TWO_32);
  return copied ? (high | COPIED_HIGH) >>> 0 : high;
}

/** Lower half of an L1 or standard L2 entry for `offset` (bytes, cluster-aligned). */
export function entryLow(offset: number, zero: boolean): number {
  const low = offset % TWO_32;
  return zero ? low + ZERO_LOW : low;
}

// --- compressed clusters ------------------------------------------------------------------------

/** Host offset of the data of a compressed entry, to the byte. */
export function compressedOffset(high: number, low: number, clusterBits: number): number {
  return (high & compressedOffsetMask(clusterBits)) * TWO_32 + low;
}

/** Bytes in the file that belong to a compressed entry: up to the end of its last 512-byte sector. */
export function compressedLength(high: number, low: number, clusterBits: number): number {
  const sectors = (high & 0x3fff_ffff) >>> (38 - clusterBits);
  return (sectors + 1) * 512 - (low & 0x1ff);
}

/** First data offset that no compressed entry has room for, bytes. */
export function compressedOffsetLimit(clusterBits: number): number {
  return Math.min(2 ** (70 - clusterBits), Number.MAX_SAFE_INTEGER);
}

/** Upper half of a compressed entry for `length` bytes at `offset`, below `compressedOffsetLimit`. The lower half is that of `offset`. */
export function compressedHigh(offset: number, length: number, clusterBits: number): number {
  const sectors = Math.floor((offset + length - 1) / 512) - Math.floor(offset / 512);
  return COMPRESSED_HIGH + sectors * 2 ** (38 - clusterBits) + Math.floor(offset / TWO_32);
}

/** The data offset of a compressed entry has bits above 2^53, or is 0, where the header lies. */
export function compressedIsCorrupt(high: number, low: number, clusterBits: number): boolean {
  const offsetHigh = high & compressedOffsetMask(clusterBits);
  return offsetHigh > 0x1f_ffff || (offsetHigh === 0 && low === 0);
}

/** The offset field ends at bit 62 - (clusterBits - 8): 38 - clusterBits bits of the upper half. */
function compressedOffsetMask(clusterBits: number): number {
  return 2 ** (38 - clusterBits) - 1;
}

// --- L1 -----------------------------------------------------------------------------------------

/** Offset of the L2 table of an L1 entry that is not corrupt; 0 = no table. The same bits as in an L2 entry. */
export const l1Offset: (high: number, low: number) => number = l2Offset;

/** Reserved bits are set, or the offset is not cluster-aligned or above 2^53. `clusterSize` in bytes. */
export function isL1EntryCorrupt(high: number, low: number, clusterSize: number): boolean {
  return (high & (L1_RESERVED_HIGH | UNSAFE_OFFSET_HIGH)) !== 0 || (low & (clusterSize - 1)) !== 0;
}
