import { describe, expect, it } from "vitest";
import type { Warning } from "../../../../../src/base/errors.js";
import { KiB, MiB } from "../../../../../src/base/units.js";
import type { ZonedDevice } from "../../../../../src/block/zoned-device.js";
import { checkQcow2 } from "../../../../../src/formats/qcow2/check/check.js";
import { createQcow2 } from "../../../../../src/formats/qcow2/create.js";
import type { CreateZoneOptions } from "../../../../../src/formats/qcow2/create-options.js";
import { openQcow2 } from "../../../../../src/formats/qcow2/open.js";
import { faultStorage } from "../../../../../src/storage/fault-storage.js";
import { type MemoryStorage, memoryStorage } from "../../../../../src/storage/memory-storage.js";

/**
 * Every fault that published implementations of zoned images had, as a test of a whole device: image, engine, table and
 * zones together. The parts have tests of their own.
 */

const GiB = 1024 * MiB;
const ZONE = MiB;

interface ImageOptions extends Omit<CreateZoneOptions, "mode"> {
  readonly disk?: number;
  readonly warnings?: Warning[];
}

async function newImage({ disk = 8 * ZONE, warnings, ...zone }: ImageOptions = {}): Promise<MemoryStorage> {
  const storage = memoryStorage();
  const onWarning = (warning: Warning): void => void warnings?.push(warning);
  await createQcow2(storage, { size: disk, zone: { mode: "host-managed", size: ZONE, ...zone } }, { onWarning });
  return storage;
}

async function open(storage: MemoryStorage): Promise<ZonedDevice> {
  return (await openQcow2(storage)) as ZonedDevice;
}

const newDevice = async (options: ImageOptions = {}): Promise<ZonedDevice> => open(await newImage(options));

async function reopened(storage: MemoryStorage, device: ZonedDevice): Promise<ZonedDevice> {
  const copy = memoryStorage(await closedBytes(storage, device));
  return open(copy);
}

async function closedBytes(storage: MemoryStorage, device: ZonedDevice): Promise<Uint8Array> {
  await device.close();
  return storage.bytes();
}

const filled = (length: number, value = 1): Uint8Array => new Uint8Array(length).fill(value);

function zone(device: ZonedDevice, index: number): { state: string; written: number } {
  const found = device.report(index * (device.limits.zoned?.zoneSize ?? 0), 1)[0];
  if (found === undefined) throw new Error(`no zone ${index}`);
  return { state: found.state, written: found.writePointer - found.start };
}

const codeOf = async (act: () => unknown): Promise<unknown> => {
  try {
    await act();
    return undefined;
  } catch (error) {
    return (error as { code?: string }).code ?? error;
  }
};

async function byteAt(device: ZonedDevice, offset: number): Promise<number> {
  const bytes = filled(512, 0xee);
  await device.read(offset - (offset % 512), bytes);
  return bytes[offset % 512] as number;
}

describe("appends", () => {
  it("go behind what is written, not to the start of the zone", async () => {
    const device = await newDevice();
    await device.write(0, filled(512, 1));
    expect(await device.append(0, filled(512, 2))).toBe(512);
    expect([await byteAt(device, 0), await byteAt(device, 512)]).toEqual([1, 2]);
  });

  it("that run at the same time never get one offset twice", async () => {
    const device = await newDevice();
    const offsets = await Promise.all(Array.from({ length: 64 }, async (_, i) => device.append(0, filled(512, i + 1))));
    expect(new Set(offsets).size).toBe(64);
    for (const [i, offset] of offsets.entries()) expect(await byteAt(device, offset)).toBe(i + 1);
  });

  it.each([
    ["append-limit", 8 * KiB],
    ["v8", 8 * KiB],
    ["v5", 8 * KiB],
    // These store the limit in sectors.
    ["v3", 8 * KiB],
  ] as const)("of layout %s are measured in the unit of their stored limit", async (layout, limit) => {
    const device = await newDevice({ layout, maxAppendBytes: limit });
    expect(device.limits.zoned?.maxAppendBytes).toBe(limit);
    expect(await device.append(0, filled(limit))).toBe(0);
    expect(await codeOf(() => device.append(0, filled(limit + 512)))).toBe("ZONE_APPEND_TOO_LARGE");
    // The limit is about appends only.
    await device.write(limit, filled(limit + 512));
  });
});

describe("a write that fails in the storage", () => {
  it("is reported as failed, and the zone goes on where the data ends", async () => {
    const memory = await newImage();
    const faults = faultStorage(memory, {});
    const device = (await openQcow2(faults)) as ZonedDevice;
    await device.write(0, filled(64 * KiB, 1));
    faults.plan({ rules: [{ fault: { type: "error" }, kinds: ["write"] }] });
    expect(await codeOf(() => device.write(64 * KiB, filled(64 * KiB, 2)))).toBe("IO_ERROR");
    expect(await codeOf(() => device.append(0, filled(64 * KiB, 2)))).toBe("IO_ERROR");
    faults.plan({});
    expect(zone(device, 0).written).toBe(64 * KiB);
    expect(await byteAt(device, 64 * KiB)).toBe(0);
    expect(await device.append(0, filled(512, 3))).toBe(64 * KiB);
  });
});

describe("opening", () => {
  it("an explicitly open zone again leaves nothing locked behind", async () => {
    const device = await newDevice();
    await device.openZones(0, ZONE);
    await device.openZones(0, ZONE);
    await device.write(0, filled(512));
    await device.closeZones(0, ZONE);
    await device.resetZones(0, ZONE);
    expect(zone(device, 0)).toEqual({ state: "empty", written: 0 });
  });

  it("an empty zone asks the open limit", async () => {
    const device = await newDevice({ maxOpenZones: 2 });
    await device.openZones(0, ZONE);
    await device.openZones(ZONE, ZONE);
    expect(await codeOf(() => device.openZones(2 * ZONE, ZONE))).toBe("ZONE_TOO_MANY_OPEN");
    expect(zone(device, 2).state).toBe("empty");
  });
});

describe("limits", () => {
  it("with every slot explicitly open, a write elsewhere is refused and nothing breaks", async () => {
    const device = await newDevice({ maxOpenZones: 2 });
    await device.openZones(0, 2 * ZONE);
    expect(await codeOf(() => device.write(2 * ZONE, filled(512)))).toBe("ZONE_TOO_MANY_OPEN");
    expect(await codeOf(() => device.append(2 * ZONE, filled(512)))).toBe("ZONE_TOO_MANY_OPEN");
    await device.closeZones(0, ZONE);
    await device.write(2 * ZONE, filled(512));
  });

  it("too large to be reached are clamped with a warning, not refused", async () => {
    const warnings: Warning[] = [];
    const device = await newDevice({ maxOpenZones: 99, maxActiveZones: 50, warnings });
    expect(device.limits.zoned).toMatchObject({ maxOpenZones: 8, maxActiveZones: 8 });
    expect(warnings.map(({ code }) => code)).toContain("ZONED_MAX_ACTIVE_CLAMPED");
  });

  it("max_open alone is in force, after a reopen too, and is not replaced by max_active", async () => {
    const storage = await newImage({ maxOpenZones: 3 });
    const device = await reopened(storage, await open(storage));
    expect(device.limits.zoned).toMatchObject({ maxOpenZones: 3, maxActiveZones: 0 });
    const both = await newDevice({ maxOpenZones: 3, maxActiveZones: 5 });
    expect(both.limits.zoned).toMatchObject({ maxOpenZones: 3, maxActiveZones: 5 });
  });

  it("max_active is stored, and in force after a reopen", async () => {
    const storage = await newImage({ maxActiveZones: 2 });
    const device = await reopened(storage, await open(storage));
    expect(device.limits.zoned).toMatchObject({ maxActiveZones: 2, maxOpenZones: 2 });
    await device.write(0, filled(512));
    await device.write(ZONE, filled(512));
    expect(await codeOf(() => device.write(2 * ZONE, filled(512)))).toBe("ZONE_TOO_MANY_ACTIVE");
  });

  it("the active limit is asked for a write that fills an empty zone", async () => {
    const device = await newDevice({ capacity: 64 * KiB, maxActiveZones: 1 });
    await device.write(0, filled(512));
    expect(await codeOf(() => device.write(ZONE, filled(64 * KiB)))).toBe("ZONE_TOO_MANY_ACTIVE");
  });

  it("closed zones count after a reopen", async () => {
    const storage = await newImage({ maxActiveZones: 2 });
    const before = await open(storage);
    await before.write(0, filled(512));
    await before.write(ZONE, filled(512));
    const device = await reopened(storage, before);
    expect(await codeOf(() => device.write(2 * ZONE, filled(512)))).toBe("ZONE_TOO_MANY_ACTIVE");
    await device.resetZones(0, ZONE);
    await device.write(2 * ZONE, filled(512));
  });

  it("a closed zone that one write fills is not counted any more", async () => {
    const device = await newDevice({ capacity: 64 * KiB, maxActiveZones: 1 });
    await device.write(0, filled(512));
    await device.closeZones(0, ZONE);
    await device.write(512, filled(64 * KiB - 512));
    expect(zone(device, 0).state).toBe("full");
    await device.write(ZONE, filled(512));
  });
});

describe("capacity", () => {
  it("is reported as it is, below the zone size", async () => {
    const device = await newDevice({ capacity: 300 * KiB });
    expect(device.report(0, 1)[0]).toMatchObject({ length: ZONE, capacity: 300 * KiB });
    expect(device.limits.zoned?.zoneCapacity).toBe(300 * KiB);
  });

  it("that is no power of two is where a zone is full, and not before", async () => {
    const device = await newDevice({ capacity: 300 * KiB });
    await device.write(0, filled(256 * KiB));
    expect(zone(device, 0).state).toBe("implicitly-open");
    expect(await codeOf(() => device.write(256 * KiB, filled(44 * KiB + 512)))).toBe("ZONE_BOUNDARY");
    await device.write(256 * KiB, filled(44 * KiB));
    expect(zone(device, 0).state).toBe("full");
    expect(await codeOf(() => device.write(300 * KiB, filled(512)))).toBe("ZONE_FULL");
  });
});

describe("a short last zone", () => {
  const disk = 2 * ZONE + 100 * KiB;

  it("is finished at the end of the disk, not past it, and still so after a reopen", async () => {
    const storage = await newImage({ disk });
    const before = await open(storage);
    await before.write(2 * ZONE, filled(512));
    await before.finishZones(2 * ZONE, 100 * KiB);
    expect(zone(before, 2)).toEqual({ state: "full", written: 100 * KiB });
    expect(zone(await reopened(storage, before), 2)).toEqual({ state: "full", written: 100 * KiB });
  });

  it("is reset alone, in a range, and with all zones", async () => {
    const device = await newDevice({ disk });
    for (const reset of [
      () => device.resetZones(2 * ZONE, 100 * KiB),
      () => device.resetZones(0, disk),
      () => device.manageAllZones("reset"),
    ]) {
      await device.write(2 * ZONE, filled(512));
      await reset();
      expect(zone(device, 2)).toEqual({ state: "empty", written: 0 });
      expect(await byteAt(device, 2 * ZONE)).toBe(0);
    }
  });
});

describe("zones of 2 GiB and more", () => {
  it("keep their positions whole through write, finish, reset and a reopen", async () => {
    const size = 4 * GiB;
    const storage = await newImage({ disk: 5 * size, size, capacity: 3 * GiB });
    const before = await open(storage);
    expect(before.report(4 * size, 1)[0]).toMatchObject({ start: 4 * size, length: size, capacity: 3 * GiB });
    await before.write(3 * size, filled(4 * KiB, 3));
    await before.finishZones(3 * size, size);
    await before.write(4 * size, filled(4 * KiB, 4));
    const device = await reopened(storage, before);
    expect(zone(device, 3)).toEqual({ state: "full", written: 3 * GiB });
    expect(zone(device, 4)).toEqual({ state: "closed", written: 4 * KiB });
    expect([await byteAt(device, 3 * size), await byteAt(device, 4 * size)]).toEqual([3, 4]);
    await device.resetZones(3 * size, 2 * size);
    expect([zone(device, 3).written, zone(device, 4).written]).toEqual([0, 0]);
    expect([await byteAt(device, 3 * size), await byteAt(device, 4 * size)]).toEqual([0, 0]);
  });
});

describe("write zeroes and discard", () => {
  it("do not get past the pointer", async () => {
    const device = await newDevice();
    await device.write(0, filled(64 * KiB));
    expect(await codeOf(() => device.writeZeroes(0, 512))).toBe("ZONE_INVALID_WRITE");
    expect(await codeOf(() => device.writeZeroes(128 * KiB, 512))).toBe("ZONE_INVALID_WRITE");
    expect(await codeOf(() => device.discard(0, 64 * KiB))).toBe("NOT_SUPPORTED");
    expect(await byteAt(device, 0)).toBe(1);
    await device.writeZeroes(64 * KiB, 64 * KiB);
    expect(zone(device, 0).written).toBe(128 * KiB);
  });
});

describe("a write from a conventional zone", () => {
  it("may not run into a sequential one, whose pointer stays", async () => {
    const device = await newDevice({ conventionalZones: 2 });
    expect(await codeOf(() => device.write(2 * ZONE - 512, filled(1024)))).toBe("ZONE_BOUNDARY");
    expect(zone(device, 2)).toEqual({ state: "empty", written: 0 });
    expect(await byteAt(device, 2 * ZONE - 512)).toBe(0);
  });
});

describe("a write of an odd size", () => {
  it("is refused, and the pointer stays a multiple of 512", async () => {
    const device = await newDevice();
    expect(await codeOf(() => device.write(0, filled(700)))).toBe("MISALIGNED");
    expect(await codeOf(() => device.append(0, filled(700)))).toBe("ZONE_MISALIGNED");
    expect(zone(device, 0)).toEqual({ state: "empty", written: 0 });
  });
});

describe("a reset", () => {
  it("is durable with its mapping after a flush: the data does not come back, the space is given back", async () => {
    const storage = await newImage();
    const before = await open(storage);
    await before.write(0, filled(ZONE, 7));
    await before.flush();
    const used = storage.allocatedSize() ?? 0;
    await before.resetZones(0, ZONE);
    await before.flush();
    expect(storage.allocatedSize()).toBeLessThan(used - ZONE / 2);
    const device = await open(memoryStorage(storage.bytes()));
    await device.finishZones(0, ZONE);
    const bytes = filled(ZONE, 0xee);
    await device.read(0, bytes);
    expect(bytes.every((byte) => byte === 0)).toBe(true);
  });
});

describe("an image with a damaged table", () => {
  it("cannot be opened, but can be checked, repaired, and opened then", async () => {
    const storage = await newImage();
    const before = await open(storage);
    await before.write(0, filled(64 * KiB, 5));
    const bytes = await closedBytes(storage, before);
    bytes.set([0, 0, 0, 0, 0x7f, 0, 0, 0], 3 * 64 * KiB);
    expect(await codeOf(() => open(memoryStorage(bytes.slice())))).toBe("ZONED_WRITE_POINTER");
    const damaged = memoryStorage(bytes.slice());
    expect((await checkQcow2(damaged)).corruptions).toBe(1);
    expect(await checkQcow2(damaged, { repair: "all" })).toMatchObject({ corruptions: 0 });
    const device = await open(damaged);
    expect(zone(device, 0)).toEqual({ state: "closed", written: 64 * KiB });
    expect(await byteAt(device, 0)).toBe(5);
  });
});

describe("an image that was not closed and has a damaged table", () => {
  it("is not repaired behind the back of whoever opens it: pointers are not made up unasked", async () => {
    const storage = await newImage();
    const before = await open(storage);
    await before.write(0, filled(64 * KiB, 5));
    const bytes = await closedBytes(storage, before);
    bytes.set([0, 0, 0, 0, 0x7f, 0, 0, 0], 3 * 64 * KiB);
    // The dirty bit.
    bytes[79] = (bytes[79] as number) | 1;
    const damaged = memoryStorage(bytes.slice());
    expect(await codeOf(() => openQcow2(damaged))).toBe("ZONED_WRITE_POINTER");
    expect(damaged.bytes()).toEqual(bytes);
    expect(await checkQcow2(damaged, { repair: "all" })).toMatchObject({ corruptions: 0 });
    expect(zone(await open(damaged), 0)).toEqual({ state: "closed", written: 64 * KiB });
  });
});

describe("callers without types", () => {
  it("an operation or state that does not exist is refused, and nothing changes", async () => {
    const device = await newDevice();
    await device.write(0, filled(512));
    expect(await codeOf(() => device.setZoneState(0, "burning" as "offline"))).toBe("INVALID_ARGUMENT");
    expect(await codeOf(() => device.manageAllZones("explode" as "reset"))).toBe("INVALID_ARGUMENT");
    expect(zone(device, 0)).toEqual({ state: "implicitly-open", written: 512 });
  });
});

describe("the errors of a refused write", () => {
  it("name the offset asked for and the pointer found, not the other way round", async () => {
    const device = await newDevice();
    await device.write(0, filled(512));
    await expect(async () => device.write(4096, filled(512))).rejects.toMatchObject({
      code: "ZONE_INVALID_WRITE",
      message: expect.stringMatching(/write at 4096 .* write pointer 512/),
      data: { value: 4096, limit: 512 },
    });
  });
});
