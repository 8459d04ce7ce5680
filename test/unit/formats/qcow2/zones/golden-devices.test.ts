import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Warning } from "../../../../../src/base/errors.js";
import { KiB, MiB } from "../../../../../src/base/units.js";
import { checkQcow2 } from "../../../../../src/formats/qcow2/check/check.js";
import { type OpenQcow2Options, openEngine, openQcow2 } from "../../../../../src/formats/qcow2/open.js";
import { convertZonedLayout } from "../../../../../src/formats/qcow2/zones/open-zones.js";
import type { ZonedQcow2Device } from "../../../../../src/formats/qcow2/zones/zoned-device.js";
import { type MemoryStorage, memoryStorage } from "../../../../../src/storage/memory-storage.js";
import { ZONE_CONDITION } from "../../../../../src/zoned/zone-state.js";

const GOLDEN = join(import.meta.dirname, "../../../../corpus/golden");
const WITH_TABLE = ["v8-written", "written-append-limit", "written-current", "written-v3", "written-v5"] as const;
const ZONE = 8 * MiB;

const golden = (name: string): MemoryStorage =>
  memoryStorage(new Uint8Array(readFileSync(join(GOLDEN, `${name}.qcow2`))));

async function open(storage: MemoryStorage, options: OpenQcow2Options = {}): Promise<ZonedQcow2Device> {
  return (await openQcow2(storage, options)) as ZonedQcow2Device;
}

/** Offset, length and value of the written parts, as the README of the images lists them. */
const WRITTEN: readonly (readonly [number, number, number])[] = [
  [1 * MiB, 64 * KiB, 0x11],
  [9 * MiB, 4 * KiB, 0x12],
  [16 * MiB, 192 * KiB, 0x21],
  [24 * MiB, 12 * KiB, 0x33],
  [40 * MiB, 1 * MiB, 0x51],
  [48 * MiB, 16 * KiB, 0xcd],
  [56 * MiB, 512, 0x71],
];

function expectedBytes(): Uint8Array {
  const disk = new Uint8Array(96 * MiB);
  for (const [offset, length, value] of WRITTEN) disk.fill(value, offset, offset + length);
  return disk;
}

/** Write pointer in sectors and zone condition, from the README. */
const REPORT: readonly (readonly [number, number])[] = [
  [0x0, 0],
  [0x4000, 0],
  [0x8180, 4],
  [0xc018, 4],
  [0x14000, 14],
  [0x18000, 14],
  [0x18020, 4],
  [0x1c001, 4],
  [0x20000, 1],
  [0x24000, 1],
  [0x28000, 1],
  [0x2c000, 1],
];

const reportOf = (device: ZonedQcow2Device): (readonly [number, number])[] =>
  device.report().map((zone) => [zone.writePointer / 512, ZONE_CONDITION[zone.state]] as const);

async function wholeDisk(device: ZonedQcow2Device): Promise<Uint8Array> {
  const disk = new Uint8Array(device.size);
  await device.read(0, disk);
  return disk;
}

/** The written part of each zone and a little more: all that the images hold, at a tenth of the time. */
const HEAD = 1 * MiB + 64 * KiB;

async function headsOf(device: ZonedQcow2Device): Promise<Uint8Array> {
  const heads = new Uint8Array((device.size / ZONE) * HEAD);
  for (let zone = 0; zone < device.size / ZONE; zone += 1) {
    await device.read(zone * ZONE, heads.subarray(zone * HEAD, (zone + 1) * HEAD));
  }
  return heads;
}

function headsIn(disk: Uint8Array): Uint8Array {
  const heads = new Uint8Array((disk.length / ZONE) * HEAD);
  for (let zone = 0; zone < disk.length / ZONE; zone += 1) {
    heads.set(disk.subarray(zone * ZONE, zone * ZONE + HEAD), zone * HEAD);
  }
  return heads;
}

const EXPECTED_HEADS = headsIn(expectedBytes());

const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

describe.each(WITH_TABLE)("golden image %s", (name) => {
  it("gives the report and the bytes of its README", async () => {
    const device = await open(golden(name));
    expect(reportOf(device)).toEqual(REPORT);
    expect(device.limits.zoned).toMatchObject({
      zoneSize: ZONE,
      maxOpenZones: 4,
      maxActiveZones: 6,
      conventionalZones: 2,
    });
    expect(device.limits.zoned?.maxAppendBytes).toBe(name === "written-current" ? ZONE : 1 * MiB);
    expect(sameBytes(await wholeDisk(device), expectedBytes())).toBe(true);
    await device.close();
  });

  it("opened and closed without a change keeps every byte", async () => {
    const storage = golden(name);
    const before = storage.bytes();
    await (await open(storage)).close();
    expect(sameBytes(before, storage.bytes())).toBe(true);
  });

  it("survives writes, close and reopening in its own layout", async () => {
    const storage = golden(name);
    const device = await open(storage);
    const layout = device.header.zoned?.layout;
    const order = device.header.zoned?.tableByteOrder;
    await device.write(24 * MiB + 12 * KiB, new Uint8Array(4 * KiB).fill(0x34));
    expect(await device.append(64 * MiB, new Uint8Array(8 * KiB).fill(0x81))).toBe(64 * MiB);
    await device.finishZones(48 * MiB, ZONE);
    await device.resetZones(16 * MiB, ZONE);
    await device.write(512 * KiB, new Uint8Array(512).fill(0x13));
    await device.close();

    const kept = memoryStorage(storage.bytes());
    const again = await open(kept);
    expect(again.header.zoned).toMatchObject({ layout, tableByteOrder: order });
    const report = [...REPORT];
    report[2] = [0x8000, 1];
    report[3] = [0xc020, 4];
    report[6] = [0x1c000, 14];
    report[8] = [0x20010, 4];
    expect(reportOf(again)).toEqual(report);
    const disk = expectedBytes();
    disk.fill(0, 16 * MiB, 17 * MiB);
    disk.fill(0x34, 24 * MiB + 12 * KiB, 24 * MiB + 16 * KiB);
    disk.fill(0x81, 64 * MiB, 64 * MiB + 8 * KiB);
    disk.fill(0x13, 512 * KiB, 512 * KiB + 512);
    expect(sameBytes(await headsOf(again), headsIn(disk))).toBe(true);
    await again.close();
    expect(await checkQcow2(memoryStorage(kept.bytes()))).toMatchObject({ corruptions: 0, checkErrors: 0 });
  });

  it("converts to layout current in place, keeping report and bytes", async () => {
    const storage = golden(name);
    const engine = await openEngine(storage);
    await convertZonedLayout(engine);
    await engine.close();
    const converted = memoryStorage(storage.bytes());
    const device = await open(converted);
    expect(device.header.zoned?.layout).toBe("current");
    expect(device.header.featureNames.some(({ name: feature }) => feature === "zoned format")).toBe(true);
    expect(reportOf(device)).toEqual(REPORT);
    expect(sameBytes(await headsOf(device), EXPECTED_HEADS)).toBe(true);
    await device.close();
    expect(await checkQcow2(memoryStorage(converted.bytes()))).toMatchObject({
      corruptions: 0,
      leaks: 0,
      checkErrors: 0,
    });
  });
});

describe("golden image v8-empty", () => {
  it("opens with its limits and twelve empty zones", async () => {
    const device = await open(golden("v8-empty"));
    expect(device.size).toBe(768 * MiB);
    expect(device.limits.zoned).toMatchObject({
      zoneSize: 64 * MiB,
      zoneCount: 12,
      maxOpenZones: 6,
      maxActiveZones: 8,
      maxAppendBytes: 4096,
    });
    expect(new Set(device.report().map((zone) => zone.state))).toEqual(new Set(["empty"]));
    await expect(async () => device.append(0, new Uint8Array(8192))).rejects.toMatchObject({
      code: "ZONE_APPEND_TOO_LARGE",
    });
    await device.close();
  });
});

describe("golden image written-seed, which stores no pointers", () => {
  const RECONSTRUCTED = REPORT.map((entry, zone): readonly [number, number] => {
    if (zone === 3) return [0xc080, 4];
    if (zone === 4) return [0x10000, 1];
    if (zone === 5) return [0x14800, 4];
    if (zone === 6) return [0x18080, 4];
    if (zone === 7) return [0x1c080, 4];
    return entry;
  });

  it("opens read-only with reconstructed pointers and a warning, and shows its bytes", async () => {
    const warnings: Warning[] = [];
    const device = await open(golden("written-seed"), { onWarning: (warning) => warnings.push(warning) });
    expect(device.readOnly).toBe(true);
    expect(warnings.map((warning) => warning.code)).toEqual(["ZONED_POINTERS_RECONSTRUCTED"]);
    expect(reportOf(device)).toEqual(RECONSTRUCTED);
    expect(sameBytes(await headsOf(device), EXPECTED_HEADS)).toBe(true);
    expect(() => device.write(64 * MiB, new Uint8Array(512))).toThrow(/read-only/);
    await device.close();
  });

  it("is converted when its opener asks for that, and can be written then", async () => {
    const storage = golden("written-seed");
    const device = await open(storage, { upgradeSeedLayout: true });
    expect(device.readOnly).toBe(false);
    await device.write(64 * MiB, new Uint8Array(4096).fill(7));
    await device.close();
    const kept = memoryStorage(storage.bytes());
    const again = await open(kept);
    expect(again.header.zoned?.layout).toBe("current");
    const report = [...RECONSTRUCTED];
    report[8] = [0x20008, 4];
    expect(reportOf(again)).toEqual(report);
    await again.close();
    expect(await checkQcow2(memoryStorage(kept.bytes()))).toMatchObject({ corruptions: 0, leaks: 0 });
  });
});
