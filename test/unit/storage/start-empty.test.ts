import { describe, expect, it } from "vitest";
import { createQcow2 } from "../../../src/formats/qcow2/create.js";
import { openQcow2 } from "../../../src/formats/qcow2/open.js";
import { createRaw } from "../../../src/formats/raw/create.js";
import { borrowedStorage } from "../../../src/storage/borrowed-storage.js";
import { memoryStorage } from "../../../src/storage/memory-storage.js";
import { offsetStorage } from "../../../src/storage/offset-storage.js";
import { startEmpty } from "../../../src/storage/start-empty.js";

const MiB = 2 ** 20;

/** A storage of fixed length, as a block device is, full of somebody's bytes. */
async function fixedStorage(length: number): Promise<ReturnType<typeof offsetStorage>> {
  const memory = memoryStorage();
  await memory.write(0, new Uint8Array(length + MiB).fill(0xab));
  return offsetStorage(memory, 0, length);
}

describe("starting empty", () => {
  it("empties a storage that can grow, old length and all", async () => {
    const storage = memoryStorage();
    await storage.write(0, new Uint8Array(10_000).fill(7));
    await startEmpty(storage, 100);
    expect(storage.bytes()).toEqual(new Uint8Array(100));
  });

  it("zeroes what is needed of a storage of fixed length, and nothing behind it", async () => {
    const storage = await fixedStorage(MiB);
    await startEmpty(storage, 10_000);
    const bytes = new Uint8Array(10_001);
    await storage.read(0, bytes);
    expect(bytes.subarray(0, 10_000).every((byte) => byte === 0)).toBe(true);
    expect(bytes[10_000]).toBe(0xab);
  });

  it("refuses what does not fit, and changes nothing", async () => {
    const storage = await fixedStorage(MiB);
    await expect(startEmpty(storage, MiB + 1)).rejects.toMatchObject({ code: "NO_SPACE" });
    const bytes = new Uint8Array(512);
    await storage.read(0, bytes);
    expect(bytes.every((byte) => byte === 0xab)).toBe(true);
  });
});

describe("images on a storage of fixed length, full of old bytes", () => {
  it("a new qcow2 image reads as zeros, takes writes where it never wrote, and keeps them", async () => {
    const storage = await fixedStorage(8 * MiB);
    await createQcow2(storage, { size: 4 * MiB });
    const device = await openQcow2(borrowedStorage(storage), {});
    await device.write(MiB + 100, new Uint8Array(1000).fill(5));
    await device.close();
    const again = await openQcow2(storage, { readOnly: true });
    const bytes = new Uint8Array(4 * MiB);
    await again.read(0, bytes);
    const expected = new Uint8Array(4 * MiB);
    expected.fill(5, MiB + 100, MiB + 1100);
    expect(Buffer.compare(bytes, expected)).toBe(0);
    await again.close();
  });

  it("a new image with preallocated metadata shows no old bytes", async () => {
    const storage = await fixedStorage(8 * MiB);
    await createQcow2(storage, { size: 4 * MiB, preallocation: "metadata" });
    const device = await openQcow2(storage, { readOnly: true });
    const bytes = new Uint8Array(4 * MiB);
    await device.read(0, bytes);
    expect(bytes.every((byte) => byte === 0)).toBe(true);
    await device.close();
  });

  it("a new raw disk reads as zeros", async () => {
    const storage = await fixedStorage(MiB);
    await createRaw(storage, { size: MiB / 2 });
    const bytes = new Uint8Array(MiB / 2);
    await storage.read(0, bytes);
    expect(bytes.every((byte) => byte === 0)).toBe(true);
  });
});
