import { describe, expect, it } from "vitest";
import type { Warning } from "../../../../../src/base/errors.js";
import { checkQcow2 } from "../../../../../src/formats/qcow2/check/check.js";
import { withZonedExtension } from "../../../../../src/formats/qcow2/header-encode.js";
import { openEngine } from "../../../../../src/formats/qcow2/open.js";
import { memoryStorage } from "../../../../../src/storage/memory-storage.js";
import {
  at,
  bench,
  CAPACITY,
  CLUSTER,
  filled,
  KB,
  newZonedImage,
  openZoned,
  readRunsOf,
  SIZE,
  ZONE,
  zoneOf,
} from "./zone-image.js";

describe("a new zoned image", () => {
  it("has its conventional zones and empty sequential ones, the last cut short", async () => {
    const device = await openZoned(await newZonedImage());
    expect(device.report().map((zone) => zone.state)).toEqual([
      "not-wp",
      "not-wp",
      "empty",
      "empty",
      "empty",
      "empty",
      "empty",
      "empty",
      "empty",
    ]);
    expect(device.report(at(8))[0]).toMatchObject({ length: 10 * KB, capacity: 10 * KB });
    expect(device.limits).toMatchObject({ requestAlignment: 512, optimalAlignment: CLUSTER });
    expect(device.limits.zoned).toMatchObject({ zoneCount: 9, conventionalZones: 2, maxAppendBytes: CAPACITY });
  });

  it("keeps pointers and data over close and reopen", async () => {
    const { device, memory } = await bench();
    await device.write(at(2), filled(6 * KB, 2));
    expect(await device.append(at(3), filled(512, 3))).toBe(at(3));
    expect(await device.append(at(3), filled(1 * KB, 4))).toBe(at(3) + 512);
    await device.write(at(4), filled(CAPACITY, 5));
    await device.openZones(at(5), ZONE);
    await device.write(100 * KB, filled(8 * KB, 1));
    await device.close();

    const again = await openZoned(memoryStorage(memory.bytes()));
    expect([2, 3, 4, 5].map((zone) => zoneOf(again, zone))).toEqual([
      ["closed", 6 * KB],
      ["closed", 1536],
      ["full", CAPACITY],
      ["empty", 0],
    ]);
    expect(await readRunsOf(again, 0, at(5))).toEqual([
      [100 * KB, 0],
      [8 * KB, 1],
      [20 * KB, 0],
      [6 * KB, 2],
      [58 * KB, 0],
      [512, 3],
      [1 * KB, 4],
      [ZONE - 1536, 0],
      [CAPACITY, 5],
      [ZONE - CAPACITY, 0],
    ]);
    await again.close();
  });
});

describe("reads", () => {
  it("of any range, to the byte, are answered across zones, pointers and the end of the capacity", async () => {
    const { device } = await bench();
    await device.write(at(1), filled(ZONE, 1));
    await device.write(at(2), filled(3 * KB, 2));
    await device.write(at(3), filled(CAPACITY, 3));
    expect(await readRunsOf(device, at(2) - 5, 10)).toEqual([
      [5, 1],
      [5, 2],
    ]);
    expect(await readRunsOf(device, at(2) + 3 * KB - 1, 3)).toEqual([
      [1, 2],
      [2, 0],
    ]);
    expect(await readRunsOf(device, at(3) - 1, CAPACITY + 3)).toEqual([
      [1, 0],
      [CAPACITY, 3],
      [2, 0],
    ]);
    expect(await readRunsOf(device, SIZE - 1, 1)).toEqual([[1, 0]]);
    await expect(async () => device.read(SIZE - 1, filled(2, 0))).rejects.toMatchObject({ code: "OUT_OF_RANGE" });
    await expect(async () => device.read(0.5, filled(1, 0))).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });
});

describe("nothing bypasses the write pointer", () => {
  it("write zeroes goes to the pointer only, and advances it", async () => {
    const { device } = await bench();
    await expect(async () => device.writeZeroes(at(2) + 4 * KB, 512)).rejects.toMatchObject({
      code: "ZONE_INVALID_WRITE",
    });
    await device.write(at(2), filled(512, 1));
    await device.writeZeroes(at(2) + 512, 8 * KB);
    expect(zoneOf(device, 2)).toEqual(["implicitly-open", 8 * KB + 512]);
    await device.write(at(2) + 512 + 8 * KB, filled(512, 2));
    expect(await readRunsOf(device, at(2), 12 * KB)).toEqual([
      [512, 1],
      [8 * KB, 0],
      [512, 2],
      [3 * KB, 0],
    ]);
  });

  it("discard is refused on sequential zones, and reaching into one; it works on conventional ones", async () => {
    const { device } = await bench();
    await device.write(at(2), filled(4 * KB, 1));
    await device.write(0, filled(8 * KB, 9));
    await expect(async () => device.discard(at(2), CLUSTER)).rejects.toMatchObject({ code: "NOT_SUPPORTED" });
    await expect(async () => device.discard(at(1), ZONE + CLUSTER)).rejects.toMatchObject({ code: "NOT_SUPPORTED" });
    await device.discard(0, CLUSTER);
    expect(await readRunsOf(device, 0, 8 * KB)).toEqual([
      [4 * KB, 0],
      [4 * KB, 9],
    ]);
    expect(await readRunsOf(device, at(2), 4 * KB)).toEqual([[4 * KB, 1]]);
  });

  it("a write from a conventional zone may not run into a sequential one", async () => {
    const { device } = await bench();
    await expect(async () => device.write(at(2) - 512, filled(1 * KB, 1))).rejects.toMatchObject({
      code: "ZONE_BOUNDARY",
    });
    await expect(async () => device.writeZeroes(at(2) - 512, 1 * KB)).rejects.toMatchObject({ code: "ZONE_BOUNDARY" });
    expect(zoneOf(device, 2)).toEqual(["empty", 0]);
  });

  it("odd lengths are refused before anything moves", async () => {
    const { device } = await bench();
    await expect(async () => device.write(at(2), filled(100, 1))).rejects.toMatchObject({ code: "MISALIGNED" });
    await expect(async () => device.append(at(2), filled(700, 1))).rejects.toMatchObject({ code: "ZONE_MISALIGNED" });
    await expect(async () => device.append(at(2), filled(0, 1))).rejects.toMatchObject({ code: "ZONE_MISALIGNED" });
    expect(zoneOf(device, 2)).toEqual(["empty", 0]);
  });
});

describe("reset", () => {
  it("empties the zone and gives its space back", async () => {
    const { device, memory } = await bench();
    await device.write(at(2), filled(CAPACITY, 1));
    await device.write(at(8), filled(10 * KB, 8));
    await device.resetZones(at(2), ZONE);
    await device.resetZones(at(8), 10 * KB);
    expect([zoneOf(device, 2), zoneOf(device, 8)]).toEqual([
      ["empty", 0],
      ["empty", 0],
    ]);
    expect(await readRunsOf(device, at(2), ZONE)).toEqual([[ZONE, 0]]);
    const kinds = new Set<string>();
    for await (const extent of device.extents(0, SIZE)) kinds.add(extent.kind);
    expect([...kinds]).toEqual(["unallocated"]);
    await device.close();
    expect(await checkQcow2(memoryStorage(memory.bytes()))).toMatchObject({
      corruptions: 0,
      leaks: 0,
      allocatedClusters: 0,
    });
  });

  it("of a range skips conventional zones and resets the short last zone", async () => {
    const { device } = await bench();
    await device.write(0, filled(512, 1));
    await device.write(at(2), filled(512, 2));
    await device.write(at(8), filled(10 * KB, 8));
    await device.resetZones(0, SIZE);
    expect([zoneOf(device, 2), zoneOf(device, 8)]).toEqual([
      ["empty", 0],
      ["empty", 0],
    ]);
    expect(await readRunsOf(device, 0, 1 * KB)).toEqual([
      [512, 1],
      [512, 0],
    ]);
  });

  it("lets the zone be written again", async () => {
    const { device } = await bench();
    await device.write(at(2), filled(8 * KB, 1));
    await device.resetZones(at(2), ZONE);
    await device.write(at(2), filled(512, 2));
    expect(await readRunsOf(device, at(2), 8 * KB)).toEqual([
      [512, 2],
      [8 * KB - 512, 0],
    ]);
  });
});

describe("operations on all zones", () => {
  it("reset-all, close-all and finish-all pick the zones they concern", async () => {
    const { device } = await bench();
    await device.write(at(2), filled(512, 2));
    await device.write(at(3), filled(512, 3));
    await device.manageAllZones("close");
    expect([zoneOf(device, 2)[0], zoneOf(device, 4)[0]]).toEqual(["closed", "empty"]);
    await device.manageAllZones("open");
    expect([zoneOf(device, 2)[0], zoneOf(device, 4)[0]]).toEqual(["explicitly-open", "empty"]);
    await device.manageAllZones("finish");
    expect([zoneOf(device, 2)[0], zoneOf(device, 4)[0]]).toEqual(["full", "empty"]);
    await device.setZoneState(at(3), "offline");
    await device.manageAllZones("reset");
    expect([zoneOf(device, 2)[0], zoneOf(device, 3)[0]]).toEqual(["empty", "offline"]);
  });
});

describe("finish", () => {
  it("makes a zone full up to its writable end, zeros past the data, and stays so over a reopen", async () => {
    const { device, memory } = await bench();
    await device.write(at(2), filled(512, 1));
    await device.finishZones(at(2), ZONE);
    await device.finishZones(at(8), 10 * KB);
    expect([zoneOf(device, 2), zoneOf(device, 8)]).toEqual([
      ["full", CAPACITY],
      ["full", 10 * KB],
    ]);
    await device.close();
    const again = await openZoned(memoryStorage(memory.bytes()));
    expect([zoneOf(again, 2), zoneOf(again, 8)]).toEqual([
      ["full", CAPACITY],
      ["full", 10 * KB],
    ]);
    expect(await readRunsOf(again, at(2), ZONE)).toEqual([
      [512, 1],
      [ZONE - 512, 0],
    ]);
  });
});

describe("order of requests", () => {
  it("a write sent right after a reset goes to the emptied zone", async () => {
    const { device } = await bench();
    await device.write(at(2), filled(8 * KB, 1));
    const reset = device.resetZones(at(2), ZONE);
    const written = device.write(at(2), filled(512, 2));
    const appended = device.append(at(2), filled(512, 3));
    await Promise.all([reset, written]);
    expect(await appended).toBe(at(2) + 512);
    expect(await readRunsOf(device, at(2), 2 * KB)).toEqual([
      [512, 2],
      [512, 3],
      [1 * KB, 0],
    ]);
  });

  it("appends sent at once get different places, and their bytes are there", async () => {
    const { device } = await bench();
    const offsets = await Promise.all(
      [1, 2, 3, 4].map(async (value) => device.append(at(2), filled(512 * value, value))),
    );
    expect(offsets).toEqual([at(2), at(2) + 512, at(2) + 1536, at(2) + 3072]);
    expect(await readRunsOf(device, at(2), 5 * KB)).toEqual([
      [512, 1],
      [1 * KB, 2],
      [1536, 3],
      [2 * KB, 4],
    ]);
  });

  it("close waits for writes that wait for an operation", async () => {
    const { device, memory } = await bench();
    await device.write(at(2), filled(512, 1));
    const reset = device.resetZones(at(2), ZONE);
    const written = device.write(at(2), filled(1 * KB, 2));
    await device.close();
    await Promise.all([reset, written]);
    expect(zoneOf(await openZoned(memoryStorage(memory.bytes())), 2)).toEqual(["closed", 1 * KB]);
  });
});

describe("zone states set by an administrator", () => {
  it("offline zones refuse reads and writes, read-only ones writes only", async () => {
    const { device } = await bench();
    await device.write(at(2), filled(512, 1));
    await device.setZoneState(at(2), "offline");
    await expect(async () => device.read(at(2), filled(512, 0))).rejects.toMatchObject({ code: "ZONE_OFFLINE" });
    await expect(async () => device.append(at(2), filled(512, 0))).rejects.toMatchObject({ code: "ZONE_OFFLINE" });
    await expect(device.resetZones(at(2), ZONE)).rejects.toMatchObject({ code: "ZONE_OFFLINE" });
    await device.setZoneState(at(2), "read-only");
    expect(await readRunsOf(device, at(2), 512)).toEqual([[512, 1]]);
    await expect(async () => device.append(at(2), filled(512, 0))).rejects.toMatchObject({ code: "ZONE_READ_ONLY" });
    await device.setZoneState(at(2), "online");
    expect(zoneOf(device, 2)).toEqual(["closed", 512]);
  });

  it("last for the session only", async () => {
    const { device, memory } = await bench();
    await device.write(at(2), filled(512, 1));
    await device.setZoneState(at(2), "offline");
    await device.close();
    expect(zoneOf(await openZoned(memoryStorage(memory.bytes())), 2)).toEqual(["closed", 512]);
  });

  it("need the start of a zone", async () => {
    const { device } = await bench();
    await expect(device.setZoneState(at(2) + 512, "offline")).rejects.toMatchObject({ code: "ZONE_MISALIGNED" });
    await expect(device.setZoneState(at(20), "offline")).rejects.toMatchObject({ code: "OUT_OF_RANGE" });
  });
});

describe("a device that is closed or read-only", () => {
  it("closed: every request is refused", async () => {
    const { device } = await bench();
    await device.close();
    expect(() => device.report()).toThrow(/closed/);
    await expect(async () => device.append(at(2), filled(512, 0))).rejects.toMatchObject({ code: "CLOSED" });
    await expect(device.resetZones(at(2), ZONE)).rejects.toMatchObject({ code: "CLOSED" });
    await expect(device.manageAllZones("reset")).rejects.toMatchObject({ code: "CLOSED" });
  });

  it("read-only: changes are refused, nothing is written", async () => {
    const memory = await newZonedImage();
    const before = memory.bytes();
    const device = await openZoned(memory, { readOnly: true });
    await expect(async () => device.write(at(2), filled(512, 0))).rejects.toMatchObject({ code: "READ_ONLY" });
    await expect(async () => device.append(at(2), filled(512, 0))).rejects.toMatchObject({ code: "READ_ONLY" });
    await expect(device.finishZones(at(2), ZONE)).rejects.toMatchObject({ code: "READ_ONLY" });
    await device.flush();
    await device.close();
    expect(Buffer.compare(memory.bytes(), before)).toBe(0);
  });
});

describe("opening", () => {
  it("warns when more zones are partly written than may be active", async () => {
    const { device, memory } = await bench();
    for (const zone of [2, 3, 4]) await device.write(at(zone), filled(512, zone));
    await device.close();
    const engine = await openEngine(memoryStorage(memory.bytes()));
    const kept = engine.storage as ReturnType<typeof memoryStorage>;
    await engine.updateHeader((header) =>
      withZonedExtension(header, header.zoned === undefined ? undefined : { ...header.zoned, maxActiveZones: 2 }),
    );
    await engine.close();
    const warnings: Warning[] = [];
    const again = await openZoned(memoryStorage(kept.bytes()), { onWarning: (warning) => warnings.push(warning) });
    expect(warnings.map((warning) => warning.code)).toEqual(["ZONED_ACTIVE_EXCEEDED"]);
    expect(warnings[0]?.message).toContain("3 zones are partly written, but max_active_zones is 2");
    await again.append(at(2), filled(512, 2));
    await expect(async () => again.append(at(5), filled(512, 2))).rejects.toMatchObject({
      code: "ZONE_TOO_MANY_ACTIVE",
    });
  });

  it("refuses a damaged table, listing the bad entries", async () => {
    const { device, memory, table } = await bench();
    await device.close();
    const damaged = memoryStorage(memory.bytes());
    await damaged.write(table + 3 * 8, filled(8, 0x11));
    await damaged.write(table + 5 * 8 + 6, filled(2, 0x11));
    await expect(openZoned(damaged)).rejects.toMatchObject({
      code: "ZONED_WRITE_POINTER",
      data: { reasons: [expect.stringContaining("entry 3"), expect.stringContaining("entry 5")] },
    });
  });

  it("an old image that breaks an alignment rule opens read-only, with a warning that names it", async () => {
    const memory = await newZonedImage({ zone: { layout: "v5" } });
    const engine = await openEngine(memory);
    // Zones of 96 KiB: no power of two. Six of them, none conventional, all pointers at their starts.
    const zoned = engine.header.zoned;
    if (zoned === undefined) throw new Error("not zoned");
    const zones = { ...zoned, zoneSize: 96 * KB, zoneCapacity: 96 * KB, zoneCount: 6, conventionalZones: 0 };
    const table = new DataView(new ArrayBuffer(48));
    for (let zone = 0; zone < 6; zone += 1) table.setUint32(zone * 8, zone * 96 * KB, true);
    await engine.storage.write(zoned.tableOffset ?? 0, new Uint8Array(table.buffer));
    await engine.write(0, filled(512, 7));
    await engine.updateHeader((header) => withZonedExtension(header, zones));
    await engine.close();
    const warnings: Warning[] = [];
    const device = await openZoned(memoryStorage(memory.bytes()), { onWarning: (warning) => warnings.push(warning) });
    expect(device.readOnly).toBe(true);
    expect(warnings.map((warning) => warning.code)).toEqual(["ZONED_ZONE_SIZE_POWER"]);
    expect(device.report().map((zone) => zone.length)).toEqual([96, 96, 96, 96, 96, 42].map((size) => size * KB));
    expect(() => device.append(0, filled(512, 1))).toThrow(/read-only/);
  });
});
