import { describe, expect, it } from "vitest";
import { ZcowError } from "../../../../src/base/errors.js";
import { KiB, MiB } from "../../../../src/base/units.js";
import type { BlockDevice } from "../../../../src/block/block-device.js";
import { isZonedDevice, type ZonedDevice } from "../../../../src/block/zoned-device.js";
import type { CreateQcow2Options } from "../../../../src/formats/qcow2/create-options.js";
import { openQcow2 } from "../../../../src/formats/qcow2/open.js";
import { openRaw } from "../../../../src/formats/raw/device.js";
import { compareDisks } from "../../../../src/jobs/compare/compare.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { newImage } from "../../../support/new-image.js";

async function disk(options: CreateQcow2Options): Promise<BlockDevice> {
  return openQcow2(memoryStorage(await newImage(options)), {});
}

async function zoned(zones: { size?: number; conventionalZones?: number } = {}): Promise<ZonedDevice> {
  const device = await disk({ size: 4 * MiB, zone: { mode: "host-managed", size: MiB, ...zones } });
  if (!isZonedDevice(device)) throw new Error("the image has no zones");
  return device;
}

describe("comparing disks", () => {
  it("finds the lowest of several differences, whichever read ends first", async () => {
    const [a, b] = [await disk({ size: 8 * MiB }), await disk({ size: 8 * MiB })];
    for (const at of [7 * MiB, 5 * MiB + 700, 6 * MiB]) await b.write(at, new Uint8Array(10).fill(1));
    const slow: BlockDevice = Object.create(b, {
      name: { value: b.name },
      size: { value: b.size },
      limits: { value: b.limits },
      extents: { value: (offset: number, length: number) => b.extents(offset, length) },
      read: {
        value: async (offset: number, into: Uint8Array) => {
          await new Promise((resolve) => setTimeout(resolve, 20 * (8 - offset / MiB)));
          await b.read(offset, into);
        },
      },
    });
    expect(await compareDisks(a, slow)).toEqual({ verdict: "content", offset: 5 * MiB + 512 });
  });

  it("does not read what is known to be zero", async () => {
    const [a, b] = [await disk({ size: 64 * MiB }), await disk({ size: 64 * MiB })];
    await a.writeZeroes(MiB, 64 * KiB);
    const read = (): never => {
      throw new Error("nothing is to be read");
    };
    Object.defineProperty(a, "read", { value: read });
    Object.defineProperty(b, "read", { value: read });
    expect(await compareDisks(a, b)).toEqual({ verdict: "same", zones: "none" });
  });

  it("tells which disk cannot be read, and where the range starts", async () => {
    const [a, b] = [await disk({ size: 8 * MiB }), await disk({ size: 8 * MiB })];
    for (const device of [a, b]) await device.write(MiB, new Uint8Array(4 * MiB).fill(7));
    const error = new ZcowError("IO_ERROR", "broken");
    const read = b.read.bind(b);
    Object.defineProperty(b, "read", {
      value: (offset: number, into: Uint8Array) => {
        if (offset > 4 * MiB) throw error;
        return read(offset, into);
      },
    });
    expect(await compareDisks(a, b)).toEqual({ verdict: "unreadable", side: "second", offset: 3 * MiB, error });
  });

  it("tells which disk cannot be mapped", async () => {
    const [a, b] = [await disk({ size: MiB }), await disk({ size: MiB })];
    const error = new Error("broken");
    Object.defineProperty(b, "extents", {
      value: async function* (offset: number) {
        if (offset === 0) throw error;
        yield* b.extents(offset, 512);
      },
    });
    expect(await compareDisks(a, b)).toEqual({ verdict: "unmapped", side: "second", error });
  });
});

describe("comparing zoned disks", () => {
  it("finds equal data, zones and write pointers equal", async () => {
    const [a, b] = [await zoned(), await zoned()];
    for (const device of [a, b]) await device.append(MiB, new Uint8Array(4096).fill(3));
    expect(await compareDisks(a, b)).toEqual({ verdict: "same", zones: "same" });
  });

  it("tells write pointers apart where the data read the same", async () => {
    const [a, b] = [await zoned(), await zoned()];
    await a.append(MiB, new Uint8Array(4096));
    await b.append(MiB, new Uint8Array(8192));
    const difference = { zone: 1, what: "writePointer", first: 4096, second: 8192 };
    expect(await compareDisks(a, b)).toEqual({ verdict: "zones", difference });
  });

  it("tells geometries apart before it reads anything", async () => {
    const [a, b] = [await zoned(), await zoned({ size: 2 * MiB })];
    const difference = { zone: undefined, what: "zoneSize", first: MiB, second: 2 * MiB };
    expect(await compareDisks(a, b)).toEqual({ verdict: "zones", difference });
    const c = await zoned({ conventionalZones: 1 });
    const conventional = { zone: undefined, what: "conventionalZones", first: 0, second: 1 };
    expect(await compareDisks(a, c)).toEqual({ verdict: "zones", difference: conventional });
  });

  it("says that zones were not compared when one disk has none, and strictly finds that different", async () => {
    const [a, b] = [await zoned(), openRaw(memoryStorage(new Uint8Array(4 * MiB)))];
    expect(await compareDisks(a, b)).toEqual({ verdict: "same", zones: "one-sided" });
    expect(await compareDisks(a, b, { strict: true })).toEqual({ verdict: "zoned" });
  });
});
