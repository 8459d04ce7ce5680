import { describe, expect, it } from "vitest";
import { checkQcow2 } from "../../../../../src/formats/qcow2/check/check.js";
import type { ZonedQcow2Device } from "../../../../../src/formats/qcow2/zones/zoned-device.js";
import { createSnapshot } from "../../../../../src/index.js";
import { borrowedStorage } from "../../../../../src/storage/borrowed-storage.js";
import { type MemoryStorage, memoryStorage } from "../../../../../src/storage/memory-storage.js";
import { recordingStorage } from "../../../../../src/storage/recording-storage.js";
import { ReferenceImage } from "../../../../support/reference-image.js";
import {
  at,
  CAPACITY,
  CLUSTER,
  filled,
  KB,
  newZonedImage,
  openZoned,
  readRunsOf,
  ZONE,
  type ZonedImageOptions,
  zoneOf,
} from "./zone-image.js";

/** Zones that keep their host clusters when they are reset (`keepZoneSpace`). */

const keepZoneSpace = true;
const CLUSTERS = CAPACITY / CLUSTER;
const FIRST = at(2) / CLUSTER;

/** Zone 2 was written whole with 0x99, flushed, and reset. */
async function resetImage(options: ZonedImageOptions = {}): Promise<{
  storage: MemoryStorage;
  device: ZonedQcow2Device;
  /** Where the zone began in the file. */
  before: number;
}> {
  const storage = await newZonedImage(options);
  const device = await openZoned(storage, { keepZoneSpace });
  await device.write(at(2), filled(CAPACITY, 0x99), { fua: true });
  const before = new ReferenceImage(storage.bytes()).mappingAt(at(2)).hostOffset;
  await device.resetZones(at(2), ZONE);
  await device.flush();
  return { storage, device, before };
}

describe.each([
  ["standard entries", {}],
  ["extended entries", { extendedL2: true, clusterSize: 16 * KB }],
  ["lazy refcounts", { lazyRefcounts: true }],
])("a zone that keeps its space when it is reset (%s)", (_name, options) => {
  it("reads as zeros, by the mapping alone too, and is empty", async () => {
    const { storage, device } = await resetImage(options);
    expect(zoneOf(device, 2)).toEqual(["empty", 0]);
    expect(await readRunsOf(device, at(2), ZONE)).toEqual([[ZONE, 0]]);
    await device.close();
    const guest = new ReferenceImage(storage.bytes()).readGuest(at(2), ZONE);
    expect(guest.every((byte) => byte === 0)).toBe(true);
    expect(await checkQcow2(memoryStorage(storage.bytes()))).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  it("is written where it was, and the file does not grow", async () => {
    const { storage, device, before } = await resetImage(options);
    const { length } = storage.bytes();
    await device.write(at(2), filled(CAPACITY, 0x55), { fua: true });
    expect(await readRunsOf(device, at(2), CAPACITY)).toEqual([[CAPACITY, 0x55]]);
    await device.close();
    expect(storage.bytes().length).toBe(length);
    expect(new ReferenceImage(storage.bytes()).mappingAt(at(2))).toMatchObject({ kind: "data", hostOffset: before });
    expect(await checkQcow2(memoryStorage(storage.bytes()))).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  it.each([512, CLUSTER + 512, 3 * CLUSTER - 512])(
    "shows nothing of its former life beside %i bytes that are written",
    async (length) => {
      const { storage, device } = await resetImage(options);
      await device.write(at(2), filled(length, 1));
      const expected = [
        [length, 1],
        [ZONE - length, 0],
      ];
      expect(await readRunsOf(device, at(2), ZONE)).toEqual(expected);
      await device.flush();
      const guest = new ReferenceImage(storage.bytes()).readGuest(at(2), ZONE);
      expect(guest.includes(0x99)).toBe(false);
      await device.finishZones(at(2), ZONE);
      expect(await readRunsOf(device, at(2), ZONE)).toEqual(expected);
      await device.close();
    },
  );

  it("gives its space back when it is reset without", async () => {
    const { storage, device } = await resetImage(options);
    await device.close();
    const copy = memoryStorage(storage.bytes());
    const plain = await openZoned(copy);
    await plain.resetZones(at(2), ZONE);
    await plain.close();
    expect(await checkQcow2(memoryStorage(copy.bytes()))).toMatchObject({ leaks: 0, allocatedClusters: 0 });
  });
});

it("keeps its clusters reserved with a count of one", async () => {
  const { storage, device, before } = await resetImage();
  await device.close();
  const image = new ReferenceImage(storage.bytes());
  for (let cluster = 0; cluster < CLUSTERS; cluster++) {
    const { kind, hostOffset } = image.mapping(FIRST + cluster);
    expect(kind).toBe("zero");
    expect(hostOffset).toBe(before + cluster * CLUSTER);
    expect(image.refcount(hostOffset / CLUSTER)).toBe(1);
  }
});

it("frees clusters that were compressed, which cannot be written in place", async () => {
  const storage = await newZonedImage();
  const device = await openZoned(storage, { keepZoneSpace });
  await device.writeCompressed(at(2), filled(2 * CLUSTER, 7));
  await device.resetZones(at(2), ZONE);
  await device.close();
  expect(new ReferenceImage(storage.bytes()).mapping(FIRST).kind).toBe("unallocated");
});

it("leaves a snapshot what it holds", async () => {
  const storage = await newZonedImage();
  const before = await openZoned(borrowedStorage(storage));
  await before.write(at(2), filled(CAPACITY, 0x99));
  await before.close();
  await createSnapshot(storage, { format: "qcow2", name: "kept" });
  const device = await openZoned(borrowedStorage(storage), { keepZoneSpace });
  await device.resetZones(at(2), ZONE);
  await device.write(at(2), filled(CAPACITY, 0x55));
  await device.close();
  const snapshot = await openZoned(borrowedStorage(storage), { snapshot: "kept", readOnly: true });
  expect(await readRunsOf(snapshot, at(2), CAPACITY)).toEqual([[CAPACITY, 0x99]]);
  await snapshot.close();
  expect(await checkQcow2(memoryStorage(storage.bytes()))).toMatchObject({ corruptions: 0, leaks: 0 });
});

it("punches no holes, and asks the file for nothing but the pointer, when a zone is reset", async () => {
  const storage = await newZonedImage();
  const recorder = recordingStorage(storage);
  const device = await openZoned(recorder, { keepZoneSpace });
  await device.write(at(2), filled(CAPACITY, 1), { fua: true });
  const from = recorder.changes.length;
  await device.resetZones(at(2), ZONE);
  await device.flush();
  expect(recorder.changes.slice(from).filter(({ kind }) => kind !== "write")).toEqual([]);
  await device.close();
});
