import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  getRefcount,
  isReftableEntryCorrupt,
  reftableEntryOffset,
  setRefcount,
  UNCOUNTABLE_REFCOUNT,
} from "../../../../src/formats/qcow2/refcount-entries.js";

const ORDERS = [0, 1, 2, 3, 4, 5, 6];
const largestOf = (order: number): number => (order === 6 ? Number.MAX_SAFE_INTEGER : 2 ** (2 ** order) - 1);

describe.each(ORDERS)("counts of order %i", (order) => {
  test("keep what was stored, and leave their neighbours alone", () => {
    const perBlock = (64 * 8) / 2 ** order;
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(perBlock - 1), fc.integer({ min: 0, max: largestOf(order) })), { maxLength: 80 }),
        (changes) => {
          const block = new Uint8Array(64);
          const expected = new Map<number, number>();
          for (const [index, count] of changes) {
            setRefcount(block, index, order, count);
            expected.set(index, count);
          }
          for (let index = 0; index < perBlock; index++) {
            expect(getRefcount(block, index, order)).toBe(expected.get(index) ?? 0);
          }
        },
      ),
    );
  });

  test("refuse what does not fit", () => {
    const block = new Uint8Array(64);
    const bad = [-1, largestOf(order) + 1, Number.NaN, UNCOUNTABLE_REFCOUNT];
    for (const count of bad) {
      expect(() => setRefcount(block, 0, order, count)).toThrow(expect.objectContaining({ code: "REFCOUNT_OVERFLOW" }));
    }
    expect(block.every((byte) => byte === 0)).toBe(true);
  });
});

test("counts that share a byte start at its least significant bit", () => {
  const block = Uint8Array.of(0b1011_0110, 0x4e);
  expect([0, 1, 2, 3, 4, 5, 6, 7, 8].map((index) => getRefcount(block, index, 0))).toEqual([0, 1, 1, 0, 1, 1, 0, 1, 0]);
  expect([0, 1, 2, 3].map((index) => getRefcount(block, index, 1))).toEqual([2, 1, 3, 2]);
  expect([0, 1, 2, 3].map((index) => getRefcount(block, index, 2))).toEqual([6, 11, 14, 4]);
});

test("wider counts are big-endian", () => {
  const block = Uint8Array.of(0x01, 0x02, 0x03, 0x04, 0x80, 0, 0, 0x09, 0, 0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
  expect(getRefcount(block, 1, 4)).toBe(0x0304);
  expect(getRefcount(block, 0, 5)).toBe(0x01020304);
  expect(getRefcount(block, 1, 5)).toBe(0x80000009);
  expect(getRefcount(block, 1, 6)).toBe(Number.MAX_SAFE_INTEGER);
});

test("a 64-bit count above 2^53 - 1 reads as infinite: never free, never raised, never written", () => {
  const block = Uint8Array.of(0, 0x20, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
  for (const index of [0, 1]) {
    const count = getRefcount(block, index, 6);
    expect(count).toBe(UNCOUNTABLE_REFCOUNT);
    expect(() => setRefcount(block, index, 6, count - 1)).toThrow(
      expect.objectContaining({ code: "REFCOUNT_OVERFLOW" }),
    );
  }
});

test("a refcount table entry is a cluster-aligned offset", () => {
  const parts = (word: bigint): [high: number, low: number] => [Number(word >> 32n), Number(word & 0xffff_ffffn)];
  for (const word of [0n, 0x20000n, 0x9_8002_0000n, 0x1f_ffff_ffff_0000n]) {
    expect(isReftableEntryCorrupt(...parts(word), 65536)).toBe(false);
    expect(reftableEntryOffset(...parts(word))).toBe(Number(word));
  }
  for (const word of [1n, 0x20200n, 1n << 53n, 1n << 63n])
    expect(isReftableEntryCorrupt(...parts(word), 65536)).toBe(true);
});
