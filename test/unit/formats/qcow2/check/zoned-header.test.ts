import { describe, expect, test } from "vitest";
import { isZcowError } from "../../../../../src/base/errors.js";
import { KiB } from "../../../../../src/base/units.js";
import { isZonedDevice, type ZonedDevice } from "../../../../../src/block/zoned-device.js";
import { checkQcow2 } from "../../../../../src/formats/qcow2/check/check.js";
import { checkExitCode } from "../../../../../src/formats/qcow2/check/check-result.js";
import { createQcow2 } from "../../../../../src/formats/qcow2/create.js";
import type { CreateZoneOptions } from "../../../../../src/formats/qcow2/create-options.js";
import { openQcow2 } from "../../../../../src/formats/qcow2/open.js";
import { faultStorage } from "../../../../../src/storage/fault-storage.js";
import { type MemoryStorage, memoryStorage } from "../../../../../src/storage/memory-storage.js";
import { recordingStorage } from "../../../../../src/storage/recording-storage.js";
import { BAD_ZONES } from "../../../../corpus/bad-zones.js";
import { all, type Change, put8, put32, put64, putExtensions, zonedImage } from "../../../../corpus/images.js";
import { Random, seedFromEnvironment } from "../../../../support/random.js";

const ZONE = 64 * KiB;
const SIZE = 8 * ZONE - 4 * KiB;
/** Written to zone 3: not a whole cluster. */
const WRITTEN = 9 * KiB + 512;

/** 8 zones in clusters of 4 KiB, the last one short; 0 conventional with data, 3 partly written, 5 finished, 7 full. */
async function writtenImage(zone: CreateZoneOptions = {}): Promise<Uint8Array> {
  const storage = memoryStorage();
  const options = { mode: "host-managed", size: ZONE, conventionalZones: 1, ...zone } as const;
  await createQcow2(storage, { size: SIZE, clusterSize: 4 * KiB, zone: options });
  const device = await zonedDevice(storage);
  await device.write(512, new Uint8Array(1024).fill(1));
  await device.write(3 * ZONE, new Uint8Array(WRITTEN).fill(3));
  await device.write(5 * ZONE, new Uint8Array(4 * KiB).fill(5));
  await device.finishZones(5 * ZONE, ZONE);
  await device.write(7 * ZONE, new Uint8Array(SIZE - 7 * ZONE).fill(7));
  await device.close();
  return storage.bytes();
}

async function zonedDevice(storage: MemoryStorage): Promise<ZonedDevice> {
  const device = await openQcow2(storage, {});
  if (!isZonedDevice(device)) throw new Error("the image is not zoned");
  return device;
}

function zonedDataAt(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 112; at < 4096; at += 8 + Math.ceil(view.getUint32(at + 4) / 8) * 8) {
    if (view.getUint32(at) === 0x007a6264) return at + 8;
  }
  throw new Error("no zoned extension");
}

/** A change of the extension, by offsets in it. */
const inExtension =
  (change: (at: number) => Change): Change =>
  (bytes) =>
    change(zonedDataAt(bytes))(bytes);

async function spoiled(spoil: Change, zone: CreateZoneOptions = {}): Promise<MemoryStorage> {
  const bytes = await writtenImage(zone);
  return memoryStorage(spoil(bytes) ?? bytes);
}

/** What was written is there, whatever the pointers became; each zone takes writes at its pointer again. */
async function expectData(image: MemoryStorage, exactPointers: boolean): Promise<void> {
  const storage = memoryStorage(image.bytes());
  const device = await zonedDevice(storage);
  const bytes = new Uint8Array(SIZE);
  await device.read(0, bytes);
  expect(bytes.subarray(512, 1536).every((byte) => byte === 1)).toBe(true);
  expect(bytes.subarray(3 * ZONE, 3 * ZONE + WRITTEN).every((byte) => byte === 3)).toBe(true);
  expect(bytes.subarray(5 * ZONE, 5 * ZONE + 4 * KiB).every((byte) => byte === 5)).toBe(true);
  expect(bytes.subarray(7 * ZONE).every((byte) => byte === 7)).toBe(true);
  const zones = device.report();
  const partly = zones[3]?.writePointer as number;
  expect(partly).toBe(exactPointers ? 3 * ZONE + WRITTEN : 3 * ZONE + 12 * KiB);
  expect(zones[2]?.writePointer).toBe(2 * ZONE);
  await device.write(partly, new Uint8Array(512).fill(9));
  await device.write(2 * ZONE, new Uint8Array(512).fill(9));
  await device.close();
  expect(await checkQcow2(memoryStorage(storage.bytes()))).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
}

interface Damage {
  readonly what: string;
  readonly code: string;
  readonly spoil: Change;
  readonly zone?: CreateZoneOptions;
  /** The table's entries are still to be found. */
  readonly exact: boolean;
}

const put = (at: number, value: number | bigint): Change => inExtension((start) => put64(start + at, value));
const put4 = (at: number, value: number): Change => inExtension((start) => put32(start + at, value));
const twice: Change = (bytes) => {
  const at = zonedDataAt(bytes);
  const data = bytes.slice(at, at + 44);
  return putExtensions(
    [
      [0x007a6264, data],
      [0x007a6264, data],
    ],
    at - 8,
  )(bytes);
};

const REPAIRABLE: readonly Damage[] = [
  { what: "table past the end of the file", code: "ZONED_TABLE_OFFSET", spoil: put(24, 1 << 30), exact: false },
  { what: "table misaligned", code: "ZONED_TABLE_OFFSET", spoil: put(24, 0x3200), exact: false },
  { what: "table at offset 0", code: "ZONED_TABLE_OFFSET", spoil: put(24, 0), exact: false },
  { what: "table above 2^53", code: "ZONED_FIELD_TOO_LARGE", spoil: put(24, 2n ** 60n), exact: false },
  { what: "table over the L1 table", code: "ZONED_TABLE_OVERLAP", spoil: put(24, 0x4000), exact: false },
  { what: "table over the refcount table", code: "ZONED_TABLE_OVERLAP", spoil: put(24, 0x1000), exact: false },
  { what: "table over a refcount block", code: "ZONED_TABLE_OVERLAP", spoil: put(24, 0x2000), exact: false },
  { what: "table over guest data or an L2 table", code: "ZONED_TABLE_OVERLAP", spoil: put(24, 0x6000), exact: false },
  { what: "feature bit missing", code: "ZONED_FEATURE_BIT", spoil: put64(72, 0), exact: true },
  {
    what: "feature bit and table missing",
    code: "ZONED_FEATURE_BIT",
    spoil: all(put64(72, 0), put(24, 0)),
    exact: false,
  },
  {
    what: "feature bit on layout v3",
    code: "ZONED_FEATURE_BIT",
    zone: { layout: "v3" },
    spoil: put64(72, 32),
    exact: true,
  },
  {
    what: "feature bit missing on layout v8",
    code: "ZONED_FEATURE_BIT",
    zone: { layout: "v8" },
    spoil: put64(72, 0),
    exact: true,
  },
  { what: "model 0 with the feature bit", code: "ZONED_MODEL", spoil: inExtension((at) => put8(at, 0)), exact: true },
  { what: "reserved bytes", code: "ZONED_RESERVED", spoil: inExtension((at) => put8(at + 2, 1)), exact: true },
  { what: "too few zones", code: "ZONED_ZONE_COUNT", spoil: put4(4, 7), exact: true },
  { what: "2^32 - 1 zones", code: "ZONED_ZONE_COUNT", spoil: put4(4, 0xffff_ffff), exact: true },
  { what: "zone size 0", code: "ZONED_ZONE_SIZE", spoil: put(8, 0), exact: true },
  { what: "zone size odd", code: "ZONED_ZONE_SIZE_POWER", spoil: put(8, ZONE + 4096), exact: true },
  { what: "table size of layout v8", code: "ZONED_TABLE_SIZE", zone: { layout: "v8" }, spoil: put(40, 8), exact: true },
  {
    what: "append limit of layout v8",
    code: "ZONED_MAX_APPEND",
    zone: { layout: "v8" },
    spoil: put4(36, 1000),
    exact: true,
  },
  {
    what: "table of layout v5 at 0",
    code: "ZONED_TABLE_OFFSET",
    zone: { layout: "v5" },
    spoil: put(40, 0),
    exact: false,
  },
  { what: "the extension twice", code: "QCOW2_EXTENSION_DUPLICATE", spoil: twice, exact: true },
];

describe("a zoned image whose header is damaged", () => {
  test.each(REPAIRABLE)("$what: check opens it and names the fault; repair all mends it", async (damage) => {
    const storage = await spoiled(damage.spoil, damage.zone);
    const found = await checkQcow2(storage);
    expect(found.failure).toBeUndefined();
    expect(found.corruptions).toBeGreaterThan(0);
    expect(found.findings.find(({ code }) => code === damage.code)).toMatchObject({
      kind: "zone",
      severity: "corruption",
      data: { structure: expect.any(String), field: expect.any(String) },
    });
    const mended = await checkQcow2(storage, { repair: "all" });
    expect(mended).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0, failure: undefined });
    expect(mended.corruptionsFixed).toBeGreaterThan(0);
    await expectData(storage, damage.exact);
  });

  test.each(REPAIRABLE)("$what: power may fail at any moment of the repair", async (damage) => {
    const random = new Random(seedFromEnvironment(11));
    const recording = recordingStorage(await spoiled(damage.spoil, damage.zone));
    await checkQcow2(recording, { repair: "all" });
    const end = recording.moment();
    expect(end).toBeGreaterThan(4);
    for (let moment = 0; moment <= end; moment++) {
      for (let variant = 0; variant < 2; variant++) {
        const left = recording.crashImage(moment, { random: () => random.u32() / 2 ** 32 });
        const again = await checkQcow2(left, { repair: "all" });
        expect(again, `seed ${random.seed} moment ${moment}`).toMatchObject({
          corruptions: 0,
          leaks: 0,
          checkErrors: 0,
        });
        await expectData(left, damage.exact);
      }
    }
  });

  test.each(REPAIRABLE)("$what: any write of the repair may fail", async (damage) => {
    const bytes = (await spoiled(damage.spoil, damage.zone)).bytes();
    for (let nth = 1; nth < 200; nth++) {
      const inner = memoryStorage(bytes);
      const rules = [
        { kinds: ["write", "flush"] as const, from: nth, fault: { type: "error", code: "NO_SPACE" } as const },
      ];
      const storage = faultStorage(inner, { rules });
      const outcome = await checkQcow2(storage, { repair: "all" });
      if (storage.faults.length === 0) return;
      expect(checkExitCode(outcome), `write ${nth}`).not.toBe(0);
      const again = await checkQcow2(inner, { repair: "all" });
      expect(again, `write ${nth}`).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
      await expectData(inner, damage.exact);
    }
    expect.unreachable();
  });

  test.each([
    { what: "the extension missing", spoil: inExtension((at) => put32(at - 8, 0x12345678)), says: /not known without/ },
    { what: "another model", spoil: inExtension((at) => put8(at, 2)), says: /another format/ },
    { what: "a capacity above the zone size", spoil: put(16, 2 * ZONE), says: /zone_capacity does not follow/ },
    { what: "all zones conventional", spoil: put4(32, 8), says: /conventional_zones does not follow/ },
    { what: "wrong number of zones and no table", spoil: all(put4(4, 9), put(24, 0)), says: /does not bear it out/ },
  ])("$what: says why it is not repaired, and changes nothing the zones need", async ({ spoil, says }) => {
    const storage = await spoiled(spoil);
    const before = storage.bytes();
    const result = await checkQcow2(storage, { repair: "all" });
    expect(result.corruptions).toBeGreaterThan(0);
    expect(result.findings.find(({ kind }) => kind === "zone")?.message).toMatch(says);
    expect(storage.bytes()).toEqual(before);
  });

  test("repair leaks frees nothing while the table cannot be found", async () => {
    const storage = await spoiled(put(24, 0));
    const before = storage.bytes();
    const result = await checkQcow2(storage, { repair: "leaks" });
    expect(result).toMatchObject({ leaksFixed: 0 });
    expect(storage.bytes()).toEqual(before);
  });

  test.each(BAD_ZONES.filter(({ inTable }) => inTable !== true))("corpus: $code, $what", async ({ zone, spoil }) => {
    const bytes = await zonedImage(zone);
    const storage = memoryStorage(spoil(bytes) ?? bytes);
    const found = await checkQcow2(storage);
    expect(found.corruptions).toBeGreaterThan(0);
    const mended = await checkQcow2(storage, { repair: "all" });
    const opened = await openQcow2(storage, {}).catch((error: unknown) => error);
    if (mended.corruptions === 0) await zonedDevice(storage);
    else expect(isZcowError(opened)).toBe(true);
  });
});
