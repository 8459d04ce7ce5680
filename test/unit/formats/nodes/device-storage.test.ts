import { describe, expect, it } from "vitest";
import { deviceStorage } from "../../../../src/formats/nodes/device-storage.js";
import { openRaw } from "../../../../src/formats/raw/device.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";

const SIZE = 4096;
const onDisk = () => deviceStorage(openRaw(memoryStorage(new Uint8Array(SIZE).fill(7))));

describe("a disk as a storage", () => {
  it("has the bytes of the disk, and zeros past its end", async () => {
    const storage = onDisk();
    const bytes = new Uint8Array(20).fill(1);
    await storage.read(SIZE - 10, bytes);
    expect([...bytes]).toEqual([...Array.from({ length: 10 }, () => 7), ...Array.from({ length: 10 }, () => 0)]);
    await storage.write(SIZE - 10, new Uint8Array(10).fill(8));
    await storage.read(SIZE - 10, bytes);
    expect(bytes[0]).toBe(8);
    expect(storage.size()).toBe(SIZE);
  });

  it("cannot become longer or shorter", async () => {
    const storage = onDisk();
    const refused = expect.objectContaining({ code: "STORAGE_UNSUPPORTED" });
    await expect(Promise.resolve().then(() => storage.write(SIZE - 1, new Uint8Array(2)))).rejects.toEqual(refused);
    await expect(Promise.resolve().then(() => storage.writeZeroes(SIZE, 1))).rejects.toEqual(refused);
    await expect(Promise.resolve().then(() => storage.truncate(SIZE + 512))).rejects.toEqual(refused);
    await storage.truncate(SIZE);
    await storage.discard(SIZE - 10, 100);
  });

  it("shows where there is nothing, past the end too", async () => {
    const runs = [];
    for await (const run of onDisk().extents(SIZE - 512, 1024)) runs.push(run);
    expect(runs).toEqual([
      { offset: SIZE - 512, length: 512, hole: false },
      { offset: SIZE, length: 512, hole: true },
    ]);
  });
});
