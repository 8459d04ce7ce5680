import { describe, expect, it } from "vitest";
import type { ZonedDevice } from "../../src/block/zoned-device.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import {
  applySnapshot,
  createSnapshot,
  deleteSnapshot,
  listSnapshots,
  memoryStorage,
  type Storage,
} from "../../src/index.js";
import { borrowedStorage } from "../../src/storage/borrowed-storage.js";
import { recordingStorage } from "../../src/storage/recording-storage.js";
import { CRASH_KINDS, crashedFile } from "../support/crash-images.js";
import { newImage } from "../support/new-image.js";
import { Random, seedFromEnvironment, taggedBytes } from "../support/random.js";
import { referenceCounts } from "../support/reference-snapshots.js";

/** Snapshots of zoned images keep the write pointers, and bring them back together with the data. */

const KIB = 1024;
const qcow2 = { format: "qcow2" } as const;
const ZONE = 64 * KIB;
const LAYOUTS = ["current", "v8", "v3"] as const;

async function withDevice(
  storage: Storage,
  work: (device: ZonedDevice) => Promise<void>,
  snapshot?: string,
): Promise<void> {
  const options = snapshot === undefined ? { readOnly: false } : { readOnly: true, snapshot };
  const device = (await openQcow2(borrowedStorage(storage), options)) as ZonedDevice;
  try {
    await work(device);
  } finally {
    await device.close();
  }
}

/** Pointers and bytes of the disk or of a snapshot. */
async function stateOf(storage: Storage, snapshot?: string): Promise<{ pointers: number[]; bytes: Uint8Array }> {
  let pointers: number[] = [];
  let bytes = new Uint8Array(0);
  await withDevice(
    storage,
    async (device) => {
      pointers = device.report().map(({ writePointer }) => writePointer);
      bytes = new Uint8Array(device.size);
      await device.read(0, bytes);
    },
    snapshot,
  );
  return { pointers, bytes };
}

async function expectState(
  storage: Storage,
  snapshot: string | undefined,
  expected: { pointers: number[]; bytes: Uint8Array },
): Promise<void> {
  const { pointers, bytes } = await stateOf(storage, snapshot);
  expect(pointers).toEqual(expected.pointers);
  expect(Buffer.compare(bytes, expected.bytes)).toBe(0);
}

async function zonedImage(layout: (typeof LAYOUTS)[number]): Promise<Uint8Array> {
  const zone = { mode: "host-managed", size: ZONE, conventionalZones: 1, layout } as const;
  const storage = memoryStorage(await newImage({ size: 5 * ZONE, clusterSize: 4 * KIB, zone }));
  await withDevice(storage, async (device) => {
    await device.write(512, taggedBytes(1, 512, 9 * KIB));
    await device.append(ZONE, taggedBytes(2, ZONE, 20 * KIB));
    await device.append(2 * ZONE, taggedBytes(3, 2 * ZONE, 10 * KIB));
    await device.finishZones(2 * ZONE, ZONE);
  });
  await createSnapshot(storage, { ...qcow2, name: "old" });
  await withDevice(storage, async (device) => {
    await device.append(ZONE, taggedBytes(4, ZONE + 20 * KIB, 10 * KIB));
    await device.resetZones(2 * ZONE, ZONE);
    await device.append(2 * ZONE, taggedBytes(5, 2 * ZONE, 3 * KIB));
    await device.append(3 * ZONE, taggedBytes(6, 3 * ZONE, ZONE));
    await device.write(512, taggedBytes(7, 512, KIB));
  });
  return storage.bytes();
}

const OPERATIONS = [
  { name: "taking", run: (storage: Storage) => createSnapshot(storage, { ...qcow2, name: "new" }) },
  { name: "applying", run: (storage: Storage) => applySnapshot(storage, { ...qcow2, snapshot: "old" }) },
  { name: "deleting", run: (storage: Storage) => deleteSnapshot(storage, { ...qcow2, snapshot: "old" }) },
];

describe.each(LAYOUTS)("a snapshot of a zoned image, layout %s", (layout) => {
  it("reads and comes back as it was, after resets of zones that it needs", async () => {
    const storage = memoryStorage(await zonedImage(layout));
    const old = await stateOf(storage, "old");
    expect(old.pointers.map((pointer, zone) => pointer - zone * ZONE)).toEqual([0, 20 * KIB, ZONE, 0, 0]);
    expect(Buffer.compare(old.bytes.subarray(ZONE, ZONE + 20 * KIB), taggedBytes(2, ZONE, 20 * KIB))).toBe(0);
    const changed = await stateOf(storage);
    expect(changed.pointers.map((pointer, zone) => pointer - zone * ZONE)).toEqual([0, 30 * KIB, 3 * KIB, ZONE, 0]);
    await createSnapshot(storage, { ...qcow2, name: "later" });
    await applySnapshot(storage, { ...qcow2, snapshot: "old" });
    await expectState(storage, undefined, old);
    expect(referenceCounts(storage.bytes(), false)).toEqual([]);
    await withDevice(storage, async (device) => {
      expect(await device.append(ZONE, taggedBytes(8, ZONE + 20 * KIB, KIB))).toBe(ZONE + 20 * KIB);
      await device.resetZones(ZONE, 4 * ZONE);
    });
    await applySnapshot(storage, { ...qcow2, snapshot: "later" });
    await expectState(storage, undefined, changed);
    await expectState(storage, "old", old);
    for (const snapshot of ["old", "later"]) await deleteSnapshot(storage, { ...qcow2, snapshot });
    await expectState(storage, undefined, changed);
    expect(referenceCounts(storage.bytes(), false)).toEqual([]);
  });

  it.each(OPERATIONS)("survives a power cut at any moment of $name it", async ({ run }) => {
    const image = await zonedImage(layout);
    const before = await stateOf(memoryStorage(image));
    const memory = memoryStorage(image);
    const recorder = recordingStorage(memory, memory);
    await run(recorder);
    const after = await stateOf(memory);
    const random = new Random(seedFromEnvironment(3));
    const calls = { initial: image, changes: recorder.changes, flushes: recorder.flushes };
    const last = recorder.moment() + 1;
    const step = layout === "current" ? Math.ceil(last / 24) : Math.ceil(last / 6);
    for (let moment = last; moment >= 0; moment -= step) {
      for (const kind of CRASH_KINDS) {
        const file = memoryStorage(crashedFile(calls, moment, kind, random));
        const where = `cut at ${moment}, ${kind}`;
        expect(referenceCounts(file.bytes(), false), where).toEqual([]);
        const now = await stateOf(file);
        const matches = [before, after].some(
          ({ pointers, bytes }) => pointers.join() === now.pointers.join() && Buffer.compare(bytes, now.bytes) === 0,
        );
        expect(matches, where).toBe(true);
        for (const { name } of await listSnapshots(file, qcow2)) await stateOf(file, name);
      }
    }
  });
});
