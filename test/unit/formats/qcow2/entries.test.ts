import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  compressedIsCorrupt,
  compressedLength,
  compressedOffset,
  entryHigh,
  entryLow,
  isCopied,
  isL1EntryCorrupt,
  L2_COMPRESSED,
  L2_CORRUPT,
  L2_DATA,
  L2_UNALLOCATED,
  L2_ZERO,
  L2_ZERO_PREALLOCATED,
  l1Offset,
  l2Kind,
  l2Offset,
  l2ReservedLow,
} from "../../../../src/formats/qcow2/entries.js";

const highOf = (word: bigint): number => Number(word >> 32n);
const lowOf = (word: bigint): number => Number(word & 0xffff_ffffn);
const kindOf = (word: bigint, clusterBits = 16, version: 2 | 3 = 3): number =>
  l2Kind(highOf(word), lowOf(word), l2ReservedLow({ version, clusterSize: 2 ** clusterBits }));

const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;

describe("a standard L2 entry", () => {
  test.each<[string, bigint, number, number, boolean]>([
    ["all zero bits", 0n, L2_UNALLOCATED, 0, false],
    ["zero flag alone", 1n, L2_ZERO, 0, false],
    ["zero flag with offset", 0x50001n, L2_ZERO_PREALLOCATED, 0x50000, false],
    ["offset", 0x50000n, L2_DATA, 0x50000, false],
    ["offset and copied flag", COPIED | 0x50000n, L2_DATA, 0x50000, true],
    ["an offset above 4 GiB", 0x1_8005_0000n, L2_DATA, 0x1_8005_0000, false],
    ["the largest offset", 0x1f_ffff_ffff_0000n, L2_DATA, 0x1f_ffff_ffff_0000, false],
    ["copied flag without offset", COPIED, L2_UNALLOCATED, 0, true],
    ["copied zero flag without offset", COPIED | 1n, L2_ZERO, 0, true],
  ])("%s", (_name, word, kind, offset, copied) => {
    expect(kindOf(word)).toBe(kind);
    expect(l2Offset(highOf(word), lowOf(word))).toBe(offset);
    expect(isCopied(highOf(word))).toBe(copied);
  });

  test.each<[string, bigint, number, 2 | 3]>([
    ["a reserved low bit", 0x50002n, 16, 3],
    ["a reserved high bit", (1n << 56n) | 0x50000n, 16, 3],
    ["bit 61", (1n << 61n) | 0x50000n, 16, 3],
    ["a misaligned offset", 0x50200n, 16, 3],
    ["an offset above 2^53", 1n << 53n, 16, 3],
    ["the zero flag in version 2", 1n, 16, 2],
    ["reserved bits of an unallocated cluster", 0x100n, 9, 3],
  ])("with %s is corrupt", (_name, word, clusterBits, version) => {
    expect(kindOf(word, clusterBits, version)).toBe(L2_CORRUPT);
  });

  test("is made of an offset and two flags", () => {
    const index = fc.integer({ min: 1, max: 2 ** 32 - 1 });
    fc.assert(
      fc.property(fc.integer({ min: 9, max: 21 }), index, fc.boolean(), fc.boolean(), (bits, cluster, copied, zero) => {
        const offset = cluster * 2 ** bits;
        const high = entryHigh(offset, copied);
        const low = entryLow(offset, zero);
        expect(l2Kind(high, low, l2ReservedLow({ version: 3, clusterSize: 2 ** bits }))).toBe(
          zero ? L2_ZERO_PREALLOCATED : L2_DATA,
        );
        expect(l2Offset(high, low)).toBe(offset);
        expect(isCopied(high)).toBe(copied);
      }),
    );
  });
});

describe("a compressed L2 entry", () => {
  const compressed = (word: bigint, bits: number): { offset: number; length: number } => {
    expect(kindOf(word, bits)).toBe(L2_COMPRESSED);
    expect(compressedIsCorrupt(highOf(word), lowOf(word), bits)).toBe(false);
    return {
      offset: compressedOffset(highOf(word), lowOf(word), bits),
      length: compressedLength(highOf(word), lowOf(word), bits),
    };
  };

  test("has its offset to the byte, and its length to the end of the last sector", () => {
    // 64 KiB clusters: 54 bits of offset, then 8 bits of extra sectors.
    expect(compressed(COMPRESSED | (3n << 54n) | 0x12345n, 16)).toEqual({ offset: 0x12345, length: 4 * 512 - 0x145 });
    // 512-byte clusters: 61 bits of offset, one of sectors; 2 MiB clusters: 49 bits, thirteen of sectors.
    expect(compressed(COMPRESSED | (1n << 61n) | 0x1ffn, 9)).toEqual({ offset: 0x1ff, length: 513 });
    expect(compressed(COMPRESSED | (4095n << 49n) | 0x200n, 21)).toEqual({ offset: 0x200, length: 2 ** 21 });
    expect(compressed(COMPRESSED | (1n << 54n) | 0xf_ffff_ffff_ffffn, 16)).toEqual({
      offset: 0xf_ffff_ffff_ffff,
      length: 513,
    });
  });

  test("with bits of its offset above 2^53, or an offset of 0, is corrupt", () => {
    for (const word of [COMPRESSED | (1n << 53n), COMPRESSED, COMPRESSED | (3n << 54n)]) {
      expect(kindOf(word)).toBe(L2_COMPRESSED);
      expect(compressedIsCorrupt(highOf(word), lowOf(word), 16)).toBe(true);
    }
  });
});

describe("an L1 entry", () => {
  test("has the offset of its table and the copied flag", () => {
    for (const word of [0n, COPIED | 0x40000n, 0x1f_ffff_ffff_0000n]) {
      expect(isL1EntryCorrupt(highOf(word), lowOf(word), 65536)).toBe(false);
      expect(l1Offset(highOf(word), lowOf(word))).toBe(Number(word & ~COPIED));
      expect(isCopied(highOf(word))).toBe((word & COPIED) !== 0n);
    }
  });

  test.each([0x40001n, 0x40200n, COMPRESSED | 0x40000n, (1n << 56n) | 0x40000n, 1n << 55n])("%i is corrupt", (word) => {
    expect(isL1EntryCorrupt(highOf(word), lowOf(word), 65536)).toBe(true);
  });
});
