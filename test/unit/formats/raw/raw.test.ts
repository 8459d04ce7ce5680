import { describe, expect, it } from "vitest";
import { createRaw } from "../../../../src/formats/raw/create.js";
import { openRaw } from "../../../../src/formats/raw/device.js";
import { faultStorage } from "../../../../src/storage/fault-storage.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { collect } from "../../../support/collect.js";

const call = async (action: () => unknown): Promise<unknown> => action();

describe("openRaw", () => {
  it.each([
    [0, 0],
    [1, 512],
    [512, 512],
    [513, 1024],
    [1000, 1024],
  ])("shows a storage of %d bytes as a disk of %d bytes", (stored, size) => {
    expect(openRaw(memoryStorage(stored)).size).toBe(size);
  });

  it("reads the missing part of the last sector as zeros", async () => {
    const device = openRaw(memoryStorage(new Uint8Array(700).fill(7)));
    const bytes = new Uint8Array(1024).fill(0xee);
    await device.read(0, bytes);
    expect([...bytes]).toEqual([...new Array(700).fill(7), ...new Array(324).fill(0)]);
  });

  it("makes the storage longer when the missing part of the last sector is written, and never past it", async () => {
    const storage = memoryStorage(new Uint8Array(700));
    const device = openRaw(storage);
    await device.write(690, new Uint8Array(334).fill(1));
    expect(storage.size()).toBe(1024);
    await expect(call(() => device.write(1024, new Uint8Array(1)))).rejects.toMatchObject({ code: "OUT_OF_RANGE" });
  });

  it("is read-only on a read-only storage unless told otherwise", () => {
    expect(openRaw(memoryStorage(512, { writable: false })).readOnly).toBe(true);
    expect(openRaw(memoryStorage(512)).readOnly).toBe(false);
    expect(openRaw(memoryStorage(512), { readOnly: true }).readOnly).toBe(true);
  });

  it("tells holes from data", async () => {
    const storage = memoryStorage(256 * 1024);
    const device = openRaw(storage);
    await device.write(128 * 1024, new Uint8Array(512).fill(1));
    const extents = await collect(device.extents(0, device.size));
    expect(extents.find((extent) => extent.offset === 0)).toMatchObject({ kind: "zero", zero: true, hostOffset: 0 });
    const data = extents.filter((extent) => extent.kind === "data");
    expect(data.some((extent) => extent.offset <= 131_072 && 131_072 < extent.offset + extent.length)).toBe(true);
    expect(data.every((extent) => extent.hostOffset === extent.offset && extent.depth === 0)).toBe(true);
  });

  it("closes its storage", async () => {
    const storage = memoryStorage(512);
    await openRaw(storage).close();
    await expect(call(() => storage.read(0, new Uint8Array(1)))).rejects.toMatchObject({ code: "CLOSED" });
  });

  it("hands on what the storage reports", async () => {
    const storage = faultStorage(memoryStorage(4096), { space: 0 });
    await expect(call(() => openRaw(storage).write(0, new Uint8Array(512)))).rejects.toMatchObject({
      code: "NO_SPACE",
    });
  });
});

describe("a raw disk that was only guessed to be raw", () => {
  const looksLikeImage = (head: Uint8Array): boolean => head[0] === 0x51 && head[1] === 0x46;
  const open = (stored = new Uint8Array(4096)): { device: ReturnType<typeof openRaw>; bytes: () => Uint8Array } => {
    const storage = memoryStorage(stored);
    return { device: openRaw(storage, { looksLikeImage }), bytes: () => storage.bytes() };
  };

  it("refuses a write that puts the mark of a format at the start", async () => {
    const { device, bytes } = open();
    const mark = new Uint8Array(512);
    mark.set([0x51, 0x46]);
    await expect(call(() => device.write(0, mark))).rejects.toMatchObject({ code: "FORMAT_MARK", errno: "EPERM" });
    expect(bytes().every((byte) => byte === 0)).toBe(true);
  });

  it("refuses the write that completes a mark, be it one byte, and even when both halves are sent at once", async () => {
    const { device, bytes } = open();
    const results = await Promise.allSettled([
      call(() => device.write(1, Uint8Array.of(0x46))),
      call(() => device.write(0, Uint8Array.of(0x51))),
    ]);
    expect(results.map((result) => result.status)).toEqual(["fulfilled", "rejected"]);
    expect([...bytes().subarray(0, 2)]).toEqual([0, 0x46]);
  });

  it("takes other writes to the first sector, and any write behind it", async () => {
    const { device, bytes } = open();
    await device.write(0, Uint8Array.of(0x51, 0x47));
    await device.write(512, Uint8Array.of(0x51, 0x46));
    expect([...bytes().subarray(0, 2)]).toEqual([0x51, 0x47]);
    expect([...bytes().subarray(512, 514)]).toEqual([0x51, 0x46]);
  });
});

describe("createRaw", () => {
  it.each([
    [0, 0],
    [1, 512],
    [1024, 1024],
    [1025, 1536],
  ])("makes a disk of zeros of %d bytes in whole sectors: %d", async (asked, made) => {
    const storage = memoryStorage(new Uint8Array(2000).fill(9));
    await createRaw(storage, { size: asked });
    expect(storage.size()).toBe(made);
    expect(storage.bytes().every((byte) => byte === 0)).toBe(true);
  });

  it.each([-1, 0.5, Number.NaN, Number.MAX_SAFE_INTEGER + 1])(
    "refuses %d bytes and leaves the storage alone",
    async (size) => {
      const storage = memoryStorage(new Uint8Array(10).fill(9));
      await expect(createRaw(storage, { size })).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
      expect(storage.bytes().every((byte) => byte === 9)).toBe(true);
    },
  );

  it.each(["falloc", "full"] as const)("takes the space at once with preallocation %s", async (preallocation) => {
    const storage = memoryStorage();
    const calls: string[] = [];
    const traced = new Proxy(storage, {
      get: (target, key) => {
        const value: unknown = Reflect.get(target, key, target);
        if (typeof value !== "function") return value;
        return (...args: unknown[]) => {
          calls.push(`${String(key)} ${args.map((arg) => JSON.stringify(arg)).join(" ")}`);
          return Reflect.apply(value, target, args) as unknown;
        };
      },
    });
    await createRaw(traced, { size: 1024, preallocation });
    expect(calls).toContain('writeZeroes 0 1024 {"unmap":false}');
    expect(calls.at(-1)).toBe("flush ");
  });
});
