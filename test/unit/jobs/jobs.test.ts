import { describe, expect, it } from "vitest";
import { KiB, MiB } from "../../../src/base/units.js";
import { openQcow2 } from "../../../src/formats/qcow2/open.js";
import { amendImage } from "../../../src/jobs/amend.js";
import { checkImage } from "../../../src/jobs/check.js";
import { describeImage } from "../../../src/jobs/info.js";
import { mapImage } from "../../../src/jobs/map.js";
import { reportZones } from "../../../src/jobs/zone-report.js";
import { memoryStorage } from "../../../src/storage/memory-storage.js";
import { collect } from "../../support/collect.js";
import { newImage } from "../../support/new-image.js";

const ZONES = { mode: "host-managed", size: MiB, capacity: 768 * KiB, conventionalZones: 1, maxOpenZones: 3 } as const;

describe("describeImage", () => {
  it("says what a plain image is", async () => {
    const image = memoryStorage(await newImage({ size: 64 * MiB, clusterSize: 4 * KiB, refcountBits: 1 }));
    expect(await describeImage(image, { format: "qcow2" })).toEqual({
      filename: "memory",
      format: "qcow2",
      virtualSize: 64 * MiB,
      actualSize: image.allocatedSize(),
      clusterSize: 4 * KiB,
      encrypted: false,
      dirty: false,
      backingFile: undefined,
      backingFormat: undefined,
      snapshotCount: 0,
      snapshots: [],
      vmStateOffset: 64 * MiB,
      qcow2: {
        version: 3,
        compressionType: "zlib",
        lazyRefcounts: false,
        refcountBits: 1,
        corrupt: false,
        extendedL2: false,
        dataFile: undefined,
        dataFileRaw: undefined,
        zoned: undefined,
      },
    });
  });

  it("shows the zones of a zoned image as they are stored", async () => {
    const image = memoryStorage(await newImage({ size: 6 * MiB, zone: ZONES }));
    const info = await describeImage(image, { format: "qcow2" });
    expect(info.qcow2?.zoned).toMatchObject({
      layout: "current",
      zoneCount: 6,
      zoneSize: MiB,
      zoneCapacity: 768 * KiB,
      conventionalZones: 1,
      maxOpenZones: 3,
    });
  });

  it("describes images that cannot be opened, because the header is enough", async () => {
    const bytes = await newImage({ size: MiB });
    const view = new DataView(bytes.buffer);
    bytes.set(new TextEncoder().encode("base.qcow2"), 1024);
    view.setUint32(12, 1024);
    view.setUint32(16, 10);
    const info = await describeImage(memoryStorage(bytes), { format: "qcow2" });
    expect(info.backingFile).toBe("base.qcow2");
  });

  it("leaves a storage that was passed in as it was, and open", async () => {
    const bytes = await newImage({ size: MiB });
    const image = memoryStorage(bytes);
    await describeImage(image, { format: "qcow2" });
    expect(Buffer.compare(image.bytes(), bytes)).toBe(0);
    expect((await describeImage(image, { format: "raw" })).virtualSize).toBe(Math.ceil(bytes.length / 512) * 512);
  });
});

describe("mapImage", () => {
  it("gives runs that are as long as they can be", async () => {
    const device = await openQcow2(memoryStorage(await newImage({ size: 4 * MiB })));
    for (let at = 0; at < 4; at++) await device.write(MiB + at * 64 * KiB, new Uint8Array(64 * KiB).fill(1));
    await device.writeZeroes(2 * MiB, 128 * KiB, { unmap: false });
    const runs = await collect(mapImage(device));
    expect(runs.map(({ start, length, present, zero, data }) => [start, length, present, zero, data])).toEqual([
      [0, MiB, false, true, false],
      [MiB, 256 * KiB, true, false, true],
      [MiB + 256 * KiB, 768 * KiB, false, true, false],
      [2 * MiB, 128 * KiB, true, true, false],
      [2 * MiB + 128 * KiB, 2 * MiB - 128 * KiB, false, true, false],
    ]);
    await device.close();
  });

  it("does not join data that lies apart in the file", async () => {
    const device = await openQcow2(memoryStorage(await newImage({ size: MiB })));
    await device.write(64 * KiB, new Uint8Array(64 * KiB).fill(1));
    await device.write(0, new Uint8Array(64 * KiB).fill(1));
    const [first, second] = await collect(mapImage(device, 0, 128 * KiB));
    expect([first?.length, second?.length]).toEqual([64 * KiB, 64 * KiB]);
    expect(first?.offset).toBeGreaterThan(second?.offset ?? Number.POSITIVE_INFINITY);
    await device.close();
  });

  it("cuts the range at the end of the disk", async () => {
    const device = await openQcow2(memoryStorage(await newImage({ size: MiB })));
    expect((await collect(mapImage(device, MiB - 512, 10 * MiB))).map((run) => run.length)).toEqual([512]);
    expect(await collect(mapImage(device, MiB, 1))).toEqual([]);
    expect(await collect(mapImage(device, 2 * MiB, 1))).toEqual([]);
    await device.close();
  });
});

describe("reportZones", () => {
  it("adds up states and written bytes", async () => {
    const device = await openQcow2(memoryStorage(await newImage({ size: 6 * MiB, zone: ZONES })));
    await device.write(0, new Uint8Array(512));
    await device.write(MiB, new Uint8Array(4096));
    const zoned = reportZones(device);
    expect(zoned.limits).toMatchObject({ zoneCount: 6, zoneCapacity: 768 * KiB });
    expect([...zoned.states]).toEqual([
      ["not-wp", 1],
      ["implicitly-open", 1],
      ["empty", 4],
    ]);
    expect(zoned.written).toBe(4096);
    expect(reportZones(device, 2 * MiB, 2).zones.map((zone) => zone.index)).toEqual([2, 3]);
    await device.close();
  });

  it("refuses disks without zones", async () => {
    const device = await openQcow2(memoryStorage(await newImage({ size: MiB })));
    expect(() => reportZones(device)).toThrow(expect.objectContaining({ code: "NOT_SUPPORTED" }));
    await device.close();
  });
});

describe("checkImage", () => {
  it("checks a sound image and leaves the storage open", async () => {
    const image = memoryStorage(await newImage({ size: 6 * MiB, zone: ZONES }));
    const result = await checkImage(image, { format: "probe" });
    expect(result).toMatchObject({ format: "qcow2", corruptions: 0, leaks: 0, checkErrors: 0 });
    await image.read(0, new Uint8Array(1));
  });

  it("refuses raw disks", async () => {
    await expect(checkImage(memoryStorage(512), { format: "raw" })).rejects.toMatchObject({
      code: "CHECK_UNSUPPORTED",
    });
  });
});

describe("amendImage", () => {
  it.each(["append-limit", "v8", "v5", "v3", "seed"] as const)(
    "brings layout %s into the current one",
    async (layout) => {
      const image = memoryStorage(await newImage({ size: 6 * MiB, zone: { ...ZONES, capacity: MiB, layout } }));
      await amendImage(image, { format: "qcow2", zoneLayout: "current" });
      expect((await describeImage(image, { format: "qcow2" })).qcow2?.zoned?.layout).toBe("current");
      expect(await checkImage(image, { format: "qcow2" })).toMatchObject({ corruptions: 0, leaks: 0 });
    },
  );

  it("refuses images without zones, and other formats", async () => {
    const plain = memoryStorage(await newImage({ size: MiB }));
    await expect(amendImage(plain, { format: "qcow2", zoneLayout: "current" })).rejects.toMatchObject({
      code: "NOT_SUPPORTED",
    });
    await expect(amendImage(memoryStorage(512), { format: "raw", zoneLayout: "current" })).rejects.toMatchObject({
      code: "AMEND_UNSUPPORTED",
    });
  });
});
