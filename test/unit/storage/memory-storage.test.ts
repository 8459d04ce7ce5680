import { describe, expect, it } from "vitest";
import { KiB, TiB } from "../../../src/base/units.js";
import { memoryStorage } from "../../../src/storage/memory-storage.js";

describe("memoryStorage", () => {
  it("holds a terabyte of which little was written", async () => {
    const storage = memoryStorage(TiB);
    await storage.write(TiB - 5, Uint8Array.of(1, 2, 3, 4, 5));
    expect(storage.allocatedSize()).toBe(64 * KiB);
    const runs = [];
    for await (const run of storage.extents(0, TiB)) runs.push(run);
    expect(runs).toEqual([
      { offset: 0, length: TiB - 64 * KiB, hole: true },
      { offset: TiB - 64 * KiB, length: 64 * KiB, hole: false },
    ]);
    await storage.writeZeroes(0, TiB);
    expect(storage.allocatedSize()).toBe(0);
  });

  it("does not keep the array it was made from", async () => {
    const initial = Uint8Array.of(1, 2, 3);
    const storage = memoryStorage(initial);
    initial.fill(9);
    expect(storage.bytes()).toEqual(Uint8Array.of(1, 2, 3));
  });

  it("shows a copy of its bytes", async () => {
    const storage = memoryStorage(Uint8Array.of(1, 2, 3));
    storage.bytes().fill(9);
    await storage.truncate(5);
    expect(storage.bytes()).toEqual(Uint8Array.of(1, 2, 3, 0, 0));
  });

  it("refuses a snapshot that would not fit in memory", () => {
    expect(() => memoryStorage(TiB).bytes()).toThrow(expect.objectContaining({ code: "OUT_OF_RANGE" }));
  });

  it("may be made for reading only", async () => {
    const storage = memoryStorage(Uint8Array.of(1), { writable: false, name: "rom" });
    expect(storage.capabilities).toMatchObject({ writable: false, resizable: false });
    await expect(storage.write(0, Uint8Array.of(2))).rejects.toMatchObject({
      code: "READ_ONLY",
      data: { path: "rom" },
    });
    expect(storage.bytes()).toEqual(Uint8Array.of(1));
  });

  it("and its clone go separate ways", async () => {
    const original = memoryStorage(new Uint8Array(200 * KiB).fill(1));
    const copy = original.clone();
    await original.write(10, Uint8Array.of(7));
    await copy.writeZeroes(100 * KiB, 10);
    await copy.truncate(150 * KiB);
    expect([original.bytes()[10], copy.bytes()[10]]).toEqual([7, 1]);
    expect([original.bytes()[100 * KiB], copy.bytes()[100 * KiB]]).toEqual([1, 0]);
    expect([original.size(), copy.size()]).toEqual([200 * KiB, 150 * KiB]);
    await copy.truncate(200 * KiB);
    expect([original.bytes()[199 * KiB], copy.bytes()[199 * KiB]]).toEqual([1, 0]);
  });
});
