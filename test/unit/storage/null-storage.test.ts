import { describe, expect, it } from "vitest";
import { nullStorage } from "../../../src/storage/null-storage.js";

describe("nullStorage", () => {
  it("reads zeros whatever was written", async () => {
    const storage = nullStorage(100);
    await storage.write(0, Uint8Array.of(1, 2, 3));
    const bytes = Uint8Array.of(9, 9, 9);
    expect(storage.read(0, bytes)).toBeUndefined();
    expect(bytes).toEqual(new Uint8Array(3));
  });

  it("keeps its size as writes and truncation change it", async () => {
    const storage = nullStorage(100);
    await storage.write(98, new Uint8Array(10));
    expect(storage.size()).toBe(108);
    await storage.writeZeroes(200, 1);
    expect(storage.size()).toBe(201);
    await storage.truncate(5);
    await storage.discard(0, 100);
    expect(storage.size()).toBe(5);
    expect(storage.allocatedSize()).toBe(0);
  });

  it("is one hole", async () => {
    const runs = [];
    for await (const run of nullStorage(100).extents(50, 100)) runs.push(run);
    expect(runs).toEqual([{ offset: 50, length: 100, hole: true }]);
  });

  it("refuses calls after close and bad ranges", async () => {
    const storage = nullStorage(10);
    await expect(storage.read(-1, new Uint8Array(1))).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
    await storage.close();
    await expect(storage.flush()).rejects.toMatchObject({ code: "CLOSED" });
  });
});
