import { ZcowError } from "../../base/errors.js";

/**
 * Counts in a refcount block (qcow2 specification, "Host cluster management"): big-endian, 1 << order bits
 * wide; several counts in one byte are stored from the least significant bit up.
 */

const TWO_32 = 0x1_0000_0000;

/**
 * What a 64-bit count above 2^53 - 1 reads as. It stays infinite when one is added or taken, and is refused when
 * written back, so such a cluster is neither freed nor shared further.
 */
export const UNCOUNTABLE_REFCOUNT = Number.POSITIVE_INFINITY;

/** The count of entry `index`. `order` is refcount_order, 0..6; `index` must lie inside `block`. */
export function getRefcount(block: Uint8Array, index: number, order: number): number {
  switch (order) {
    case 4: {
      const at = index * 2;
      return ((block[at] as number) << 8) | (block[at + 1] as number);
    }
    case 0:
      return ((block[index >>> 3] as number) >>> (index & 7)) & 1;
    case 1:
      return ((block[index >>> 2] as number) >>> ((index & 3) * 2)) & 3;
    case 2:
      return ((block[index >>> 1] as number) >>> ((index & 1) * 4)) & 15;
    case 3:
      return block[index] as number;
    case 5:
      return bigEndian32(block, index * 4);
    default: {
      const high = bigEndian32(block, index * 8);
      return high > 0x1f_ffff ? UNCOUNTABLE_REFCOUNT : high * TWO_32 + bigEndian32(block, index * 8 + 4);
    }
  }
}

/** Stores a count. Throws `REFCOUNT_OVERFLOW` when it does not fit the width, above 2^53 - 1, or below 0. */
export function setRefcount(block: Uint8Array, index: number, order: number, count: number): void {
  // The width of nearly all images.
  if (order === 4 && count >= 0 && count <= 0xffff) {
    block[index * 2] = count >>> 8;
    block[index * 2 + 1] = count & 0xff;
    return;
  }
  const bits = 2 ** order;
  const largest = bits >= 53 ? Number.MAX_SAFE_INTEGER : 2 ** bits - 1;
  if (!(count >= 0 && count <= largest)) throw refcountOverflow(count, bits, largest);
  if (order < 3) {
    setPartOfByte(block, index, bits, count);
    return;
  }
  const width = bits / 8;
  let rest = count;
  for (let at = (index + 1) * width - 1; at >= index * width; at--) {
    block[at] = rest % 256;
    rest = Math.floor(rest / 256);
  }
}

function setPartOfByte(block: Uint8Array, index: number, bits: number, count: number): void {
  const perByte = 8 / bits;
  const at = Math.floor(index / perByte);
  const shift = (index % perByte) * bits;
  const mask = (2 ** bits - 1) << shift;
  block[at] = ((block[at] as number) & ~mask) | (count << shift);
}

function bigEndian32(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] as number) << 24) |
      ((bytes[at + 1] as number) << 16) |
      ((bytes[at + 2] as number) << 8) |
      (bytes[at + 3] as number)) >>>
    0
  );
}

function refcountOverflow(count: number, bits: number, largest: number): ZcowError {
  return new ZcowError(
    "REFCOUNT_OVERFLOW",
    `A reference count of ${count} does not fit the ${bits}-bit counts of this image (largest ${largest})`,
    {
      data: { structure: "refcount block", field: "refcount", value: count, limit: largest },
    },
  );
}

// --- refcount table entries -------------------------------------------------------------------

/** Offset of the refcount block in a refcount table entry, 0 = none. Meaningless when `isReftableEntryCorrupt`. */
export function reftableEntryOffset(high: number, low: number): number {
  return high * TWO_32 + (low - (low & 0x1ff));
}

/** Reserved bits are set, or the offset is not cluster-aligned or above 2^53. `clusterSize` in bytes. */
export function isReftableEntryCorrupt(high: number, low: number, clusterSize: number): boolean {
  return high > 0x1f_ffff || (low & (clusterSize - 1)) !== 0;
}
