import type { FeatureName, Qcow2Features } from "./header.js";

/** Incompatible features: a program that does not know a set bit must not open the image. */
export const INCOMPATIBLE = {
  /** Refcounts may be stale: rebuild them before use. */
  dirty: 1n << 0n,
  /** Some structure is corrupt: no writes until repaired. */
  corrupt: 1n << 1n,
  externalData: 1n << 2n,
  /** compression_type is not 0. */
  compressionType: 1n << 3n,
  extendedL2: 1n << 4n,
  /** The disk is a zoned block device; the zoned header extension describes it. */
  zoned: 1n << 5n,
} as const;

/** Compatible features: unknown bits are ignored, and kept. */
export const COMPATIBLE = {
  lazyRefcounts: 1n << 0n,
} as const;

/** Autoclear features: a program that does not keep the promise behind a bit clears it before it writes. */
export const AUTOCLEAR = {
  /** The bitmaps are consistent with the data. */
  bitmaps: 1n << 0n,
  /** The external data file can be read as a raw image. */
  rawExternalData: 1n << 1n,
  /** The journal of the session that the session extension names completes the image (session.ts). As far from the bits of others as can be. */
  session: 1n << 63n,
} as const;

const sumOf = (bits: Readonly<Record<string, bigint>>): bigint =>
  Object.values(bits).reduce((sum, bit) => sum | bit, 0n);

export const KNOWN_INCOMPATIBLE = sumOf(INCOMPATIBLE);

/** Autoclear bits whose promise is kept while writing: zeros reach a raw data file too (external-data.ts). Bitmaps open read-only. */
const HONOURED_AUTOCLEAR = AUTOCLEAR.rawExternalData;

export const NO_FEATURES: Qcow2Features = { incompatible: 0n, compatible: 0n, autoclear: 0n };

/** The feature name table of QEMU 7.2, in its order. */
export const STOCK_FEATURE_NAMES: readonly FeatureName[] = [
  { type: "incompatible", bit: 0, name: "dirty bit" },
  { type: "incompatible", bit: 1, name: "corrupt bit" },
  { type: "incompatible", bit: 2, name: "external data file" },
  { type: "incompatible", bit: 3, name: "compression type" },
  { type: "incompatible", bit: 4, name: "extended L2 entries" },
  { type: "compatible", bit: 0, name: "lazy refcounts" },
  { type: "autoclear", bit: 0, name: "bitmaps" },
  { type: "autoclear", bit: 1, name: "raw external data" },
];

const ZONED_FEATURE_NAME: FeatureName = { type: "incompatible", bit: 5, name: "zoned format" };

/** The feature name table of a zoned image: the zoned entry follows the other incompatible ones. */
export const ZONED_FEATURE_NAMES: readonly FeatureName[] = [
  ...STOCK_FEATURE_NAMES.slice(0, 5),
  ZONED_FEATURE_NAME,
  ...STOCK_FEATURE_NAMES.slice(5),
];

/**
 * Names of the incompatible bits of `bits`, from the image's own table; bits without a name are given together
 * as one hexadecimal word, as stock tools print them.
 */
export function nameIncompatibleBits(bits: bigint, names: readonly FeatureName[]): string {
  const parts: string[] = [];
  let unnamed = bits;
  for (const { type, bit, name } of names) {
    const mask = 1n << BigInt(bit);
    if (type === "incompatible" && (unnamed & mask) !== 0n && name !== "") {
      parts.push(name);
      unnamed &= ~mask;
    }
  }
  if (unnamed !== 0n) parts.push(`Unknown incompatible feature: ${unnamed.toString(16)}`);
  return parts.join(", ");
}

/**
 * Autoclear bits that must be cleared, durably, before the first change of the image: the unknown ones and
 * those whose promise is not kept by this program. 0n when nothing has to be done.
 */
export function autoclearBitsToClear(features: Qcow2Features): bigint {
  return features.autoclear & ~HONOURED_AUTOCLEAR;
}
