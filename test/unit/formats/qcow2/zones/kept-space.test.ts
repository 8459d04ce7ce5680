import { describe, expect, it } from "vitest";
import { checkQcow2 } from "../../../../../src/formats/qcow2/check/check.js";
import type { ZonedQcow2Device } from "../../../../../src/formats/qcow2/zones/zoned-device.js";
import { createSnapshot } from "../../../../../src/index.js";
import { borrowedStorage } from "../../../../../src/storage/borrowed-storage.js";
import { type FaultStorage, faultStorage } from "../../../../../src/storage/fault-storage.js";
import { type MemoryStorage, memoryStorage } from "../../../../../src/storage/memory-storage.js";
import { recordingStorage } from "../../../../../src/storage/recording-storage.js";
import type { Storage } from "../../../../../src/storage/storage.js";
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

/** As `resetImage`, closed. */
async function closedResetImage(): Promise<MemoryStorage> {
  const { storage, device } = await resetImage();
  await device.close();
  return memoryStorage(storage.bytes());
}

/** Open, and written to already: the first write after opening takes the long way, which pads at once. */
async function openWarm(storage: Storage): Promise<ZonedQcow2Device> {
  const device = await openZoned(storage, { keepZoneSpace });
  await device.append(at(3), filled(512, 1));
  return device;
}

/** The same, of a `closedResetImage` on which faults can be planned. */
async function openWarmOnFaults(): Promise<{ storage: MemoryStorage; faults: FaultStorage; next: ZonedQcow2Device }> {
  const storage = await closedResetImage();
  const faults = faultStorage(borrowedStorage(storage), {});
  return { storage, faults, next: await openWarm(faults) };
}

/** The bytes that the mapping alone shows of zone `index`. */
const mapped = (storage: MemoryStorage, index: number): Uint8Array =>
  new ReferenceImage(storage.bytes()).readGuest(at(index), ZONE);

describe("a reserved cluster of which only the start is written", () => {
  it("is not padded when it fills up before the next flush", async () => {
    const recorder = recordingStorage(await closedResetImage());
    const next = await openWarm(recorder);
    const from = recorder.changes.length;
    for (let i = 0; i < (2 * CLUSTER) / 512; i++) await next.append(at(2), filled(512, 1 + i));
    const lengths = recorder.changes.slice(from).map(({ length }) => length);
    expect(lengths).toEqual(new Array((2 * CLUSTER) / 512).fill(512));
    await next.close();
  });

  it("keeps what is written to it whole after another reset", async () => {
    const { storage, device } = await resetImage();
    await device.append(at(2), filled(512, 1));
    await device.resetZones(at(2), ZONE);
    await device.append(at(2), filled(2 * CLUSTER, 2));
    await device.flush();
    expect(await readRunsOf(device, at(2), ZONE)).toEqual([
      [2 * CLUSTER, 2],
      [ZONE - 2 * CLUSTER, 0],
    ]);
    await device.close();
    expect(mapped(storage, 2).includes(0x99)).toBe(false);
  });

  it("keeps what is written to it compressed after another reset", async () => {
    const { device } = await resetImage();
    await device.append(at(2), filled(512, 1));
    await device.resetZones(at(2), ZONE);
    await device.writeCompressed(at(2), filled(2 * CLUSTER, 2));
    await device.append(at(2), filled(512, 3));
    await device.flush();
    expect(await readRunsOf(device, at(2), ZONE)).toEqual([
      [2 * CLUSTER, 2],
      [512, 3],
      [ZONE - 2 * CLUSTER - 512, 0],
    ]);
    await device.close();
  });

  it("shows zeros behind it at once in a conventional zone", async () => {
    const storage = await newZonedImage();
    const device = await openZoned(storage, { keepZoneSpace });
    await device.write(at(1), filled(4 * CLUSTER, 0x99));
    await device.writeZeroes(at(1), 4 * CLUSTER, { unmap: false });
    await device.write(at(1), filled(512, 1));
    expect(await readRunsOf(device, at(1), 4 * CLUSTER)).toEqual([
      [512, 1],
      [4 * CLUSTER - 512, 0],
    ]);
    await device.close();
  });

  it.each(["error", "torn"] as const)("shows nothing of its former life where a write fails (%s)", async (type) => {
    const { storage, faults, next } = await openWarmOnFaults();
    const host = new ReferenceImage(storage.bytes()).mappingAt(at(2)).hostOffset;
    await next.append(at(2), filled(512, 1));
    faults.plan({ rules: [{ fault: { type, bytes: 512 }, where: (call) => call.at === host + 512 }] });
    const results = await Promise.allSettled([
      next.append(at(2), filled(1024, 2)),
      next.append(at(2), filled(512, 3)),
      next.append(at(2), filled(CLUSTER, 4)),
    ]);
    expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
    expect(zoneOf(next, 2)).toEqual(["implicitly-open", 512]);
    faults.plan({});
    await next.flush();
    expect(mapped(storage, 2).includes(0x99)).toBe(false);
    await next.append(at(2), filled(1024, 5));
    await next.flush();
    expect(await readRunsOf(next, at(2), ZONE)).toEqual([
      [512, 1],
      [1024, 5],
      [ZONE - 1536, 0],
    ]);
    await next.close();
    expect(await checkQcow2(memoryStorage(storage.bytes()))).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  it("makes every later flush fail when the one that was to make its zeros durable did", async () => {
    const { faults, next } = await openWarmOnFaults();
    await next.append(at(4), filled(512, 1));
    await next.flush();
    await next.append(at(2), filled(512, 1));
    // Makes the data durable; the zeros come later.
    await next.resetZones(at(4), ZONE);
    faults.plan({ rules: [{ fault: { type: "error" }, kinds: ["flush"], nth: 1 }] });
    await expect(Promise.resolve(next.flush())).rejects.toMatchObject({ code: "IO_ERROR" });
    await expect(Promise.resolve(next.flush())).rejects.toThrow("an earlier flush failed");
    await next.close().catch(() => undefined);
  });

  it("keeps the flush from succeeding when it cannot be padded, and is padded by the next one", async () => {
    const { storage, faults, next } = await openWarmOnFaults();
    const host = new ReferenceImage(storage.bytes()).mappingAt(at(2)).hostOffset;
    await next.append(at(2), filled(512, 1));
    faults.plan({ rules: [{ fault: { type: "error" }, where: (call) => call.at === host + 512 }] });
    await expect(Promise.resolve(next.flush())).rejects.toMatchObject({ code: "IO_ERROR" });
    expect(mapped(storage, 2).includes(0x99)).toBe(false);
    faults.plan({});
    await next.append(at(2), filled(512, 2));
    await next.flush();
    expect(await readRunsOf(next, at(2), ZONE)).toEqual([
      [512, 1],
      [512, 2],
      [ZONE - 1024, 0],
    ]);
    expect(mapped(storage, 2).includes(0x99)).toBe(false);
    await next.close();
  });
});
