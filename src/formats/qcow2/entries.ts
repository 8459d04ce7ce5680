import { ZcowError } from "../../base/errors.js";
import { type HostOffset, hostOffset } from "../../base/units.js";
import type { Qcow2Geometry } from "./geometry.js";

/**
 * L1 and L2 table entries (qcow2 specification, "Cluster mapping"), big-endian 64-bit words.
 *
 * Two forms of the same rules: numeric accessors on the two 32-bit halves, which allocate nothing and serve
 * every request, and `decodeL2Entry`, a discriminated union for everything that is not hot.
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

/** What an L2 entry is. Compressed entries are judged by `compressedIsCorrupt`, which needs the cluster size. */
export function l2Kind(high: number, low: number, reservedLow: number): L2Kind {
  if ((high & COMPRESSED_HIGH) !== 0) return L2_COMPRESSED;
  if ((low & reservedLow) !== 0 || (high & (L2_RESERVED_HIGH | UNSAFE_OFFSET_HIGH)) !== 0) return L2_CORRUPT;
  const empty = (high & OFFSET_HIGH) === 0 && (low & ~ZERO_LOW) === 0;
  if ((low & ZERO_LOW) !== 0) return empty ? L2_ZERO : L2_ZERO_PREALLOCATED;
  return empty ? L2_UNALLOCATED : L2_DATA;
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

/** Offset of the L2 table of an L1 entry that is not corrupt; 0 = no table. */
export function l1Offset(high: number, low: number): number {
  return (high & OFFSET_HIGH) * TWO_32 + ((low & ~0x1ff) >>> 0);
}

/** Reserved bits are set, or the offset is not cluster-aligned or above 2^53. `clusterSize` in bytes. */
export function isL1EntryCorrupt(high: number, low: number, clusterSize: number): boolean {
  return (high & (L1_RESERVED_HIGH | UNSAFE_OFFSET_HIGH)) !== 0 || (low & (clusterSize - 1)) !== 0;
}

// --- the union ----------------------------------------------------------------------------------

/** An L2 entry, decoded. Offsets and lengths in bytes of the image file. */
export type L2Entry =
  | { readonly kind: "unallocated" }
  | { readonly kind: "zero" }
  | { readonly kind: "zero-preallocated"; readonly offset: HostOffset; readonly copied: boolean }
  | { readonly kind: "data"; readonly offset: HostOffset; readonly copied: boolean }
  | { readonly kind: "compressed"; readonly offset: HostOffset; readonly length: number };

/** Decodes the entry at byte `at` of an L2 table. Throws `IMAGE_CORRUPT` for an entry that breaks the rules. */
export function decodeL2Entry(table: DataView, at: number, geometry: Qcow2Geometry): L2Entry {
  const high = table.getUint32(at);
  const low = table.getUint32(at + 4);
  const kind = l2Kind(high, low, l2ReservedLow(geometry));
  switch (kind) {
    case L2_UNALLOCATED:
      return { kind: "unallocated" };
    case L2_ZERO:
      return { kind: "zero" };
    case L2_ZERO_PREALLOCATED:
      return { kind: "zero-preallocated", offset: hostOffset(l2Offset(high, low)), copied: isCopied(high) };
    case L2_DATA:
      return { kind: "data", offset: hostOffset(l2Offset(high, low)), copied: isCopied(high) };
    case L2_COMPRESSED:
      if (compressedIsCorrupt(high, low, geometry.clusterBits)) throw corruptEntry("L2", table, at);
      return {
        kind: "compressed",
        offset: hostOffset(compressedOffset(high, low, geometry.clusterBits)),
        length: compressedLength(high, low, geometry.clusterBits),
      };
    default:
      throw corruptEntry("L2", table, at);
  }
}

/** Writes an entry at byte `at` of an L2 table. Throws `INVALID_ARGUMENT` for a value the format cannot hold. */
export function encodeL2Entry(table: DataView, at: number, entry: L2Entry, geometry: Qcow2Geometry): void {
  let high = 0;
  let low = 0;
  switch (entry.kind) {
    case "unallocated":
      break;
    case "zero":
      low = ZERO_LOW;
      break;
    case "zero-preallocated":
    case "data":
      high = entryHigh(entry.offset, entry.copied);
      low = entryLow(entry.offset, entry.kind !== "data");
      break;
    case "compressed":
      [high, low] = encodeCompressed(entry.offset, entry.length, geometry.clusterBits);
      break;
  }
  table.setUint32(at, high);
  table.setUint32(at + 4, low);
  if (JSON.stringify(decodeL2Entry(table, at, geometry)) !== JSON.stringify(entry)) {
    throw new ZcowError("INVALID_ARGUMENT", `An L2 entry cannot hold ${JSON.stringify(entry)}`, {
      data: { structure: "L2 entry" },
    });
  }
}

function encodeCompressed(offset: number, length: number, clusterBits: number): [high: number, low: number] {
  const sectors = Math.ceil((length + (offset % 512)) / 512) - 1;
  const offsetHigh = Math.floor(offset / TWO_32);
  return [(COMPRESSED_HIGH + sectors * 2 ** (38 - clusterBits) + offsetHigh) >>> 0, offset % TWO_32];
}

/** Decodes the L1 entry at byte `at`: the offset of its L2 table (0 = none) and its copied flag. Throws `IMAGE_CORRUPT`. */
export function decodeL1Entry(
  table: DataView,
  at: number,
  geometry: Pick<Qcow2Geometry, "clusterSize">,
): { readonly offset: HostOffset; readonly copied: boolean } {
  const high = table.getUint32(at);
  const low = table.getUint32(at + 4);
  if (isL1EntryCorrupt(high, low, geometry.clusterSize)) throw corruptEntry("L1", table, at);
  return { offset: hostOffset(l1Offset(high, low)), copied: isCopied(high) };
}

function corruptEntry(level: "L1" | "L2", table: DataView, at: number): ZcowError {
  const value = table.getBigUint64(at);
  const index = at / 8;
  return new ZcowError(
    "IMAGE_CORRUPT",
    `${level} entry ${index} of its table is 0x${value.toString(16)}: reserved bits are set, or its offset is not cluster-aligned below 2^53`,
    { data: { structure: `${level} table`, field: `entry ${index}`, value } },
  );
}
