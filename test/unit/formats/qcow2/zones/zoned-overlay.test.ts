import { beforeEach, describe, expect, it } from "vitest";
import { createImage, isZonedDevice, openImage, type ZonedDevice } from "../../../../../src/index.js";
import { taggedBytes } from "../../../../support/random.js";
import { temporaryFolder } from "../../../../support/temporary-folder.js";

const KIB = 1024;
const ZONE = 64 * KIB;
const base = {
  format: "qcow2",
  size: 5 * ZONE,
  clusterSize: 4 * KIB,
  zone: { mode: "host-managed", size: ZONE, capacity: 48 * KIB, conventionalZones: 1, maxActiveZones: 3 },
} as const;
const overlay = { format: "qcow2", backingFile: "base", backingFormat: "qcow2", clusterSize: 4 * KIB } as const;
const BEHIND = taggedBytes(1, ZONE, 10 * KIB + 512);

async function openZoned(path: string): Promise<ZonedDevice> {
  const device = await openImage(path, { format: "qcow2", implicitFiles: "allow" });
  if (!isZonedDevice(device)) throw new Error("no zones");
  return device;
}

async function read(device: ZonedDevice, offset: number, length: number): Promise<Buffer> {
  const bytes = new Uint8Array(length);
  await device.read(offset, bytes);
  return Buffer.from(bytes);
}

describe("an overlay of a zoned image", () => {
  const path = temporaryFolder();

  beforeEach(async () => {
    await createImage(path("base"), base);
    const device = await openZoned(path("base"));
    await device.write(0, taggedBytes(2, 0, 8 * KIB));
    await device.write(ZONE, BEHIND);
    await device.write(2 * ZONE, taggedBytes(3, 2 * ZONE, 48 * KIB));
    await device.finishZones(3 * ZONE, ZONE);
    await device.close();
    await createImage(path("overlay"), overlay);
  });

  it("has the geometry and the write pointers of what is behind it", async () => {
    const device = await openZoned(path("overlay"));
    expect(device.limits.zoned).toMatchObject({
      zoneSize: ZONE,
      zoneCapacity: 48 * KIB,
      zoneCount: 5,
      conventionalZones: 1,
      maxActiveZones: 3,
    });
    expect(device.report().map(({ state, writePointer, start }) => [state, writePointer - start])).toEqual([
      ["not-wp", 0],
      ["closed", 10 * KIB + 512],
      ["full", 48 * KIB],
      ["full", 48 * KIB],
      ["empty", 0],
    ]);
    expect((await read(device, ZONE, BEHIND.length)).equals(BEHIND)).toBe(true);
    expect((await read(device, 3 * ZONE, ZONE)).equals(new Uint8Array(ZONE))).toBe(true);
    await device.close();
  });

  it("goes on at an inherited pointer, inside a cluster that is only behind it", async () => {
    const device = await openZoned(path("overlay"));
    const more = taggedBytes(4, ZONE + BEHIND.length, 2 * KIB);
    expect(await device.append(ZONE, more)).toBe(ZONE + BEHIND.length);
    await device.close();
    const again = await openZoned(path("overlay"));
    expect((await read(again, ZONE, BEHIND.length + more.length)).equals(Buffer.concat([BEHIND, more]))).toBe(true);
    expect(again.report(ZONE, 1)[0]?.writePointer).toBe(ZONE + BEHIND.length + more.length);
    await again.close();
    const behind = await openZoned(path("base"));
    expect(behind.report(ZONE, 1)[0]?.writePointer).toBe(ZONE + BEHIND.length);
    await behind.close();
  });

  it("hides what is behind a zone that was reset, also after it is filled or finished again", async () => {
    const device = await openZoned(path("overlay"));
    await device.resetZones(ZONE, 2 * ZONE);
    expect((await read(device, ZONE, 2 * ZONE)).equals(new Uint8Array(2 * ZONE))).toBe(true);
    await device.write(ZONE, taggedBytes(5, ZONE, 512));
    await device.finishZones(ZONE, 2 * ZONE);
    await device.close();
    const again = await openZoned(path("overlay"));
    const expected = new Uint8Array(2 * ZONE);
    expected.set(taggedBytes(5, ZONE, 512));
    expect((await read(again, ZONE, 2 * ZONE)).equals(expected)).toBe(true);
    await again.close();
  });

  it("shows nothing old when the mapping of a reset zone never became durable", async () => {
    const device = await openZoned(path("overlay"));
    await device.resetZones(ZONE, ZONE);
    // As after a crash: only what was durable is looked at.
    const crashed = await openImage(path("overlay"), {
      format: "qcow2",
      readOnly: true,
      implicitFiles: "allow",
      file: { forceShare: true, lock: false },
    });
    const bytes = new Uint8Array(ZONE);
    await crashed.read(ZONE, bytes);
    expect(Buffer.from(bytes).equals(new Uint8Array(ZONE))).toBe(true);
    await crashed.close();
    await device.close();
  });

  it("takes other limits, and no other geometry", async () => {
    await createImage(path("other"), { ...overlay, zone: { maxActiveZones: 4, maxOpenZones: 2 } });
    const device = await openZoned(path("other"));
    expect(device.limits.zoned).toMatchObject({ maxActiveZones: 4, maxOpenZones: 2 });
    await device.close();
    const other = (options: object): Promise<void> => createImage(path("x"), { ...overlay, ...options });
    await expect(other({ zone: { size: 2 * ZONE } })).rejects.toMatchObject({ data: { option: "zone.size" } });
    await expect(other({ size: 6 * ZONE })).rejects.toMatchObject({ data: { option: "size" } });
    await expect(other({ zone: { layout: "seed" } })).rejects.toMatchObject({ data: { option: "zone.layout" } });
  });

  it("is a plain disk when that is asked for", async () => {
    await createImage(path("plain"), { ...overlay, zone: { mode: "none" } });
    const device = await openImage(path("plain"), { format: "qcow2", implicitFiles: "allow" });
    expect(isZonedDevice(device)).toBe(false);
    await device.write(ZONE + 100, taggedBytes(6, 0, 100));
    const bytes = new Uint8Array(BEHIND.length);
    await device.read(ZONE, bytes);
    const expected = BEHIND.slice();
    expected.set(taggedBytes(6, 0, 100), 100);
    expect(Buffer.from(bytes).equals(expected)).toBe(true);
    await device.close();
  });
});

describe("a zoned image with an external data file", () => {
  const path = temporaryFolder();

  it.each([false, true])("keeps its zones and pointers (raw: %s)", async (dataFileRaw) => {
    await createImage(path("image"), { ...base, dataFile: path("data"), dataFileRaw });
    const device = await openZoned(path("image"));
    await device.write(ZONE, BEHIND);
    await device.write(2 * ZONE, taggedBytes(7, 2 * ZONE, 4 * KIB));
    await device.flush();
    await device.resetZones(2 * ZONE, ZONE);
    await device.close();
    const again = await openZoned(path("image"));
    expect(again.report().map(({ writePointer, start }) => writePointer - start)).toEqual([0, BEHIND.length, 0, 0, 0]);
    expect((await read(again, ZONE, BEHIND.length)).equals(BEHIND)).toBe(true);
    expect((await read(again, 2 * ZONE, ZONE)).equals(new Uint8Array(ZONE))).toBe(true);
    await again.close();
  });
});
