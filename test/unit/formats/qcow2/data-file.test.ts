import { describe, expect, it } from "vitest";
import { createQcow2 } from "../../../../src/formats/qcow2/create.js";
import type { CreateQcow2Options } from "../../../../src/formats/qcow2/create-options.js";
import { openQcow2 } from "../../../../src/formats/qcow2/open.js";
import { type MemoryStorage, memoryStorage } from "../../../../src/storage/memory-storage.js";
import type { Storage } from "../../../../src/storage/storage.js";
import { taggedBytes } from "../../../support/random.js";

const KIB = 1024;
const options = { size: 100 * KIB + 512, clusterSize: 4 * KIB, dataFile: "disk.raw" } as const;

/** A new image and its data file, in memory. */
async function make(more: CreateQcow2Options = {}): Promise<{ image: MemoryStorage; data: MemoryStorage }> {
  const [image, data] = [memoryStorage(), memoryStorage()];
  await createQcow2(image, { ...options, ...more }, { dataFile: data });
  return { image, data };
}

/** Notes changes and flushes of `storage` in `log`, as `name.call`; neighbours of one kind once. */
function logged(storage: Storage, name: string, log: string[]): Storage {
  const note = (call: string): void => {
    if (log.at(-1) !== `${name}.${call}`) log.push(`${name}.${call}`);
  };
  return new Proxy(storage, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== "function") return value;
      return (...args: unknown[]): unknown => {
        if (key === "write" || key === "writeZeroes" || key === "discard" || key === "flush") note(key);
        return Reflect.apply(value, target, args);
      };
    },
  });
}

const bytesAt = ({ view }: { view: DataView }, offset: number): bigint => view.getBigUint64(offset);

describe("an image with an external data file", () => {
  it("stores each byte at its guest offset, and nothing of it in the image", async () => {
    const { image, data } = await make();
    const device = await openQcow2(image, { dataFile: data });
    await device.write(10 * KIB + 5, taggedBytes(1, 0, 3 * KIB));
    await device.write(0, taggedBytes(2, 0, 4 * KIB));
    await device.close();
    const expected = new Uint8Array(options.size);
    expected.set(taggedBytes(1, 0, 3 * KIB), 10 * KIB + 5);
    expected.set(taggedBytes(2, 0, 4 * KIB));
    expect(Buffer.from(data.bytes()).equals(expected)).toBe(true);
    // Header, refcount table and block, L1 table, L2 table.
    expect(image.size()).toBe(5 * 4 * KIB);
    const view = new DataView(image.bytes().buffer, 4 * 4 * KIB);
    expect([0, 16, 24].map((at) => bytesAt({ view }, at).toString(16))).toEqual([
      "8000000000000000",
      "8000000000002000",
      "8000000000003000",
    ]);
  });

  it("is flushed before the tables that refer to it, and they before write pointers", async () => {
    const { image, data } = await make({ zone: { mode: "host-managed", size: 32 * KIB } });
    const log: string[] = [];
    const device = await openQcow2(logged(image, "image", log), { dataFile: logged(data, "data", log) });
    await device.write(0, taggedBytes(1, 0, 4 * KIB));
    await device.flush();
    const order = ["data.write", "data.flush", "image.flush"].map((call) => log.indexOf(call));
    expect(order, log.join(" ")).toEqual([...order].sort((a, b) => a - b));
    expect(order).not.toContain(-1);
    // Tables and pointers, with a flush of their own behind them.
    expect(log.slice(order[2]).filter((call) => call === "image.write").length).toBeGreaterThanOrEqual(2);
    expect(log.at(-1)).toBe("image.flush");
    await device.close();
  });

  it("never reports a flush as done after one of the data file failed", async () => {
    const { image, data } = await make();
    let fails = true;
    const failing = new Proxy(data, {
      get(target, key) {
        const value: unknown = Reflect.get(target, key, target);
        if (key === "flush" && fails) {
          return (): never => {
            throw new Error("no power");
          };
        }
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
    const before = image.bytes();
    const device = await openQcow2(image, { dataFile: failing });
    await device.write(0, taggedBytes(1, 0, 4 * KIB));
    await expect((async () => device.flush())()).rejects.toThrow("no power");
    expect(bytesAt({ view: new DataView(image.bytes().buffer) }, 3 * 4 * KIB)).toBe(
      bytesAt({ view: new DataView(before.buffer) }, 3 * 4 * KIB),
    );
    fails = false;
    await expect((async () => device.flush())()).rejects.toMatchObject({ code: "IO_ERROR" });
    await device.close().catch(() => undefined);
  });

  it("hides what the data file held where nothing was written, raw or not", async () => {
    const { image, data } = await make();
    await data.write(0, new Uint8Array(options.size).fill(0xee));
    const device = await openQcow2(image, { dataFile: data });
    await device.write(5 * KIB, Uint8Array.of(1, 2, 3));
    const bytes = new Uint8Array(options.size);
    await device.read(0, bytes);
    const expected = new Uint8Array(options.size);
    expected.set([1, 2, 3], 5 * KIB);
    expect(Buffer.from(bytes).equals(expected)).toBe(true);
    await device.close();
  });

  it("shows what a raw data file that was kept holds, and makes a shorter one longer", async () => {
    const [image, data] = [memoryStorage(), memoryStorage(taggedBytes(4, 0, 50 * KIB))];
    await createQcow2(image, { ...options, dataFileRaw: true, keepDataFile: true }, { dataFile: data });
    expect(data.size()).toBe(options.size);
    const device = await openQcow2(image, { dataFile: data });
    const bytes = new Uint8Array(60 * KIB);
    await device.read(0, bytes);
    const expected = new Uint8Array(60 * KIB);
    expected.set(taggedBytes(4, 0, 50 * KIB));
    expect(Buffer.from(bytes).equals(expected)).toBe(true);
    await device.close();
  });

  it.each([
    ["to another offset", 0x8000_0000_0000_3000n],
    ["compressed", 0x4000_0000_0000_3000n],
  ])("that maps a cluster %s is corrupt, and stays as it is when read", async (_what, entry) => {
    const { image, data } = await make();
    const device = await openQcow2(image, { dataFile: data });
    await device.write(8 * KIB, taggedBytes(1, 0, 4 * KIB));
    await device.close();
    const bytes = image.bytes();
    new DataView(bytes.buffer).setBigUint64(4 * 4 * KIB + 16, entry);
    const bad = await openQcow2(memoryStorage(bytes), { dataFile: data, readOnly: true });
    await expect((async () => bad.read(8 * KIB, new Uint8Array(512)))()).rejects.toMatchObject({
      code: "IMAGE_CORRUPT",
    });
    await bad.close();
  });

  it("opens without a name when the file is given, and not otherwise", async () => {
    const { image, data } = await make();
    const bytes = image.bytes();
    new DataView(bytes.buffer).setUint32(112, 0x1234_5678);
    const nameless = memoryStorage(bytes);
    await expect(openQcow2(nameless, { implicitFiles: "allow" })).rejects.toMatchObject({
      code: "QCOW2_DATA_FILE_MISSING",
    });
    const device = await openQcow2(nameless, { dataFile: data });
    await device.write(0, taggedBytes(1, 0, 512));
    await device.close();
  });
});
