import { describe, expect, test } from "vitest";
import { MiB } from "../../../../../src/base/units.js";
import { ReferenceCounts, SEEN_COPIED, SEEN_PLAIN } from "../../../../../src/formats/qcow2/check/reference-counts.js";

describe("ReferenceCounts", () => {
  test("starts at 0 everywhere and takes no memory for it", () => {
    const counts = new ReferenceCounts(2 ** 31 - 1, 65_535, 0);
    expect(counts.get(0)).toBe(0);
    expect(counts.get(2 ** 31 - 2)).toBe(0);
    expect(counts.isUntouched(0, 2 ** 31 - 1)).toBe(true);
  });

  test.each([1, 3, 15, 255, 65_535])("stops at %i, the largest count of the image", (largest) => {
    const counts = new ReferenceCounts(10, largest, MiB);
    for (let i = 0; i < largest; i++) expect(counts.add(3)).toBe(true);
    expect(counts.add(3)).toBe(false);
    expect(counts.get(3)).toBe(largest);
    expect(counts.get(2)).toBe(0);
    expect(counts.get(4)).toBe(0);
  });

  test("counts past what a chunk element holds, and keeps what was seen", () => {
    const counts = new ReferenceCounts(10, 2 ** 32 - 1, MiB);
    for (let i = 0; i < 70_000; i++) counts.add(7, SEEN_COPIED);
    counts.see(7, SEEN_PLAIN);
    expect(counts.get(7)).toBe(70_000);
    expect(counts.seen(7)).toBe(SEEN_COPIED | SEEN_PLAIN);
    counts.set(7, 1);
    expect(counts.get(7)).toBe(1);
    expect(counts.seen(7)).toBe(SEEN_COPIED | SEEN_PLAIN);
  });

  test("finds the next touched chunk", () => {
    const counts = new ReferenceCounts(1_000_000, 65_535, MiB);
    counts.add(500_000);
    expect(counts.nextTouched(0)).toBe(Math.floor(500_000 / 4096) * 4096);
    expect(counts.nextTouched(500_000)).toBe(500_000);
    expect(counts.nextTouched(600_000)).toBe(1_000_000);
    expect(counts.isUntouched(0, 4096)).toBe(true);
    expect(counts.isUntouched(0, 500_001)).toBe(false);
  });

  test("refuses to take more memory than allowed", () => {
    const counts = new ReferenceCounts(2 ** 31 - 1, 65_535, 10 * 8192);
    for (let i = 0; i < 10; i++) counts.add(i * 4096);
    expect(() => counts.add(10 * 4096)).toThrow(expect.objectContaining({ code: "CHECK_LIMIT" }));
    expect(counts.add(3)).toBe(true);
  });
});
