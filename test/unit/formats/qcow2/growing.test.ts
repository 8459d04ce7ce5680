import { describe, expect, it } from "vitest";
import { viewOf } from "../../../../src/base/bytes.js";
import { isZcowError } from "../../../../src/base/errors.js";
import type { MaybePromise } from "../../../../src/base/maybe-promise.js";
import type { BlockDevice } from "../../../../src/block/block-device.js";
import type { CreateQcow2Options } from "../../../../src/formats/qcow2/create-options.js";
import { openQcow2 } from "../../../../src/formats/qcow2/open.js";
import { openRaw } from "../../../../src/formats/raw/device.js";
import { changeBitmap } from "../../../../src/jobs/bitmap.js";
import { borrowedStorage } from "../../../../src/storage/borrowed-storage.js";
import { ChangeJournal } from "../../../../src/storage/change-journal.js";
import { type Fault, type FaultStorage, faultStorage } from "../../../../src/storage/fault-storage.js";
import { ForwardingStorage } from "../../../../src/storage/forwarding-storage.js";
import { type MemoryStorage, memoryStorage } from "../../../../src/storage/memory-storage.js";
import { contentsOf, expectSameBytes, withZeros } from "../../../support/disk-bytes.js";
import { imageInMemory } from "../../../support/engine-images.js";
import { GROWING_IMAGES, openGrowing } from "../../../support/growing.js";
import { JitteryStorage } from "../../../support/jittery-storage.js";
import { MemoryJournal } from "../../../support/memory-journal.js";
import { holdingsOf } from "../../../support/operation-crash.js";
import { featureImage } from "../../../support/operation-images.js";
import { compressibleBytes, Random, taggedBytes } from "../../../support/random.js";
import { referenceCheck } from "../../../support/reference-check.js";
import { referenceCounts } from "../../../support/reference-snapshots.js";
import { WatchedStorage } from "../../../support/watched-storage.js";

const KIB = 1024;
const MIB = 1024 * KIB;
const qcow2 = { format: "qcow2" } as const;

/** 64 entries in a cluster of the L1 table, each of which maps 32 KiB. */
const SMALL = { size: 160 * KIB, clusterSize: 512 } as const;
const L1_CLUSTER_COVERS = 2 * MIB;

/** A cluster that {@link HoldingStorage} does not write before it is told to. */
const HELD = new Uint8Array(4 * KIB).fill(0xab);

class HoldingStorage extends ForwardingStorage {
  readonly memory: MemoryStorage;
  #held: { readonly number: number; readonly go: () => void }[] = [];
  #number = 0;

  constructor(memory: MemoryStorage) {
    super(memory);
    this.memory = memory;
  }

  override write(at: number, from: Uint8Array): MaybePromise<void> {
    if (Buffer.compare(from, HELD) !== 0) return super.write(at, from);
    const number = this.#number++;
    return new Promise((resolve) => {
      this.#held.push({ number, go: () => resolve(super.write(at, from)) });
    });
  }

  /** Ends the held writes that `which` picks, numbered in the order in which they came. */
  letGo(which: (number: number) => boolean): void {
    const picked = this.#held.filter(({ number }) => which(number));
    this.#held = this.#held.filter(({ number }) => !which(number));
    for (const { go } of picked) go();
  }
}

/** Long enough for everything that waits for nothing but turns. */
async function turns(): Promise<void> {
  for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** The fields that a growing disk changes. */
function sizesOf(storage: MemoryStorage): { size: number; l1Size: number; l1Offset: number } {
  const view = viewOf(storage.bytes());
  return { size: Number(view.getBigUint64(24)), l1Size: view.getUint32(36), l1Offset: Number(view.getBigUint64(40)) };
}

function expectCounted(storage: MemoryStorage): void {
  expect(referenceCounts(storage.bytes(), false)).toEqual([]);
}

describe.each(GROWING_IMAGES)("a disk that grows while it is open: $name", (feature) => {
  it("keeps what it has, and reads as zeros behind its old end, whatever is below", async () => {
    const image = await featureImage(feature);
    const storage = memoryStorage(image.bytes);
    const before = await holdingsOf(image.bytes, image);
    const device = await openGrowing(storage, image);
    const unit = device.limits.optimalAlignment;
    let expected = await contentsOf(device);
    const cluster = Math.ceil(device.size / unit) * unit;
    for (const [round, size] of [device.size + 512, cluster, cluster + 3 * unit + 512, 3 * MIB, 9 * MIB].entries()) {
      const old = device.size;
      if (size <= old) continue;
      await device.grow(size);
      expected = withZeros(expected, size);
      expectSameBytes(await contentsOf(device), expected, `${old} to ${size}`);
      for (const at of [old - 512, size - 700]) {
        const bytes = taggedBytes(40 + round, at, 700);
        await device.write(at, bytes.subarray(0, size - at));
        expected.set(bytes.subarray(0, size - at), at);
      }
      if (round % 2 === 0) await device.flush();
      expectSameBytes(await contentsOf(device), expected, `written after ${size}`);
    }
    await device.close();
    expectCounted(storage);
    const after = await holdingsOf(storage.bytes(), image);
    expectSameBytes(after.get("disk") as Uint8Array, expected, "opened again");
    for (const [name, held] of before) {
      if (!name.startsWith("snapshot ")) continue;
      expectSameBytes(after.get(name) as Uint8Array, held as Uint8Array, name);
    }
  });
});

describe("the L1 table of a disk that grows", () => {
  it("gets longer where it is as long as its clusters reach, and what the file has behind it does not count", async () => {
    const storage = await imageInMemory(SMALL);
    const before = sizesOf(storage);
    await storage.write(before.l1Offset + before.l1Size * 8, new Uint8Array(512 - before.l1Size * 8).fill(0x5a));
    const device = await openGrowing(storage);
    await device.write(0, taggedBytes(1, 0, SMALL.size));
    await device.grow(L1_CLUSTER_COVERS);
    expect(sizesOf(storage)).toEqual({ size: L1_CLUSTER_COVERS, l1Size: 64, l1Offset: before.l1Offset });
    const expected = withZeros(taggedBytes(1, 0, SMALL.size), L1_CLUSTER_COVERS);
    expectSameBytes(await contentsOf(device), expected, "grown");
    await device.close();
    expectCounted(storage);
  });

  it("goes to new clusters when it has no room, and its old ones are given back", async () => {
    const storage = await imageInMemory(SMALL);
    const before = sizesOf(storage);
    const device = await openGrowing(storage);
    await device.write(0, taggedBytes(1, 0, SMALL.size));
    await device.grow(L1_CLUSTER_COVERS + 512);
    const { size, l1Size, l1Offset } = sizesOf(storage);
    expect([size, l1Size]).toEqual([L1_CLUSTER_COVERS + 512, 65]);
    expect(l1Offset).not.toBe(before.l1Offset);
    await device.write(L1_CLUSTER_COVERS, taggedBytes(2, 0, 512));
    const expected = await contentsOf(device);
    await device.close();
    expectCounted(storage);
    const again = await openGrowing(storage);
    expectSameBytes(await contentsOf(again), expected, "opened again");
  });

  it("takes more clusters in a row than a refcount block counts", async () => {
    const storage = await imageInMemory(SMALL);
    const device = await openGrowing(storage);
    await device.write(0, taggedBytes(1, 0, SMALL.size));
    // 256 counts in a block; 300 and 1500 clusters for the table.
    for (const clusters of [300, 1500]) await device.grow(clusters * L1_CLUSTER_COVERS);
    await device.write(1500 * L1_CLUSTER_COVERS - 512, taggedBytes(2, 0, 512));
    await device.close();
    expectCounted(storage);
    expect(storage.size()).toBeLessThan(2 * MIB);
    const again = await openGrowing(storage);
    const found = new Uint8Array(512);
    await again.read(1500 * L1_CLUSTER_COVERS - 512, found);
    expectSameBytes(found, taggedBytes(2, 0, 512), "the end of the disk");
  });

  it("is made for a disk that had no bytes at all", async () => {
    const storage = await imageInMemory({ size: 0, clusterSize: 4 * KIB });
    const device = await openGrowing(storage);
    await device.grow(5 * MIB);
    await device.write(4 * MIB, taggedBytes(1, 0, 512));
    await device.close();
    expectCounted(storage);
    const bytes = await contentsOf(await openGrowing(storage));
    expectSameBytes(bytes.subarray(4 * MIB, 4 * MIB + 512), taggedBytes(1, 0, 512), "written");
  });

  it("loses no entry that is made while it moves", async () => {
    for (let seed = 1; seed <= 60; seed++) {
      const random = new Random(seed);
      const storage = await imageInMemory({ ...SMALL, size: MIB });
      const device = await openGrowing(new JitteryStorage(storage, random));
      const expected = new Uint8Array(5 * MIB);
      const write = async (at: number): Promise<void> => {
        const bytes = taggedBytes(seed, at, 1024);
        expected.set(bytes, at);
        await device.write(at, bytes);
      };
      const tables = random.shuffled(Array.from({ length: 32 }, (_, index) => index * 32 * KIB));
      const jobs = tables.slice(0, 12).map((at) => write(at));
      jobs.push(device.grow(3 * MIB).then(() => write(3 * MIB - 1024)));
      jobs.push(device.grow(5 * MIB).then(() => write(5 * MIB - 1024)));
      for (const at of tables.slice(12, 20)) {
        await new Promise((resolve) => setImmediate(resolve));
        jobs.push(write(at));
        if (random.chance(0.3)) jobs.push(Promise.resolve(device.flush()));
      }
      await Promise.all(jobs);
      expectSameBytes(await contentsOf(device), expected, `seed ${seed}`);
      await device.close();
      expectCounted(storage);
      expectSameBytes(await contentsOf(await openGrowing(storage)), expected, `seed ${seed}, opened again`);
    }
  });

  it("moves in the journal, too: a process that is killed afterwards loses nothing", async () => {
    const storage = await imageInMemory(SMALL);
    const place = new MemoryJournal();
    const journal = new ChangeJournal(place);
    const device: BlockDevice = await openQcow2(storage, { journal });
    await device.write(40 * KIB, taggedBytes(1, 0, 512));
    journal.commit();
    await device.grow?.(4 * MIB);
    await device.write(100 * KIB, taggedBytes(2, 0, 512));
    await device.write(3 * MIB, taggedBytes(3, 0, 512));
    journal.commit();
    const expected = await contentsOf(device);
    const killed = memoryStorage(storage.bytes());
    const again = await openQcow2(killed, { journal: new ChangeJournal(new MemoryJournal(place.load())) });
    expectSameBytes(await contentsOf(again), expected, "resumed");
    await again.close();
    expectCounted(killed);
  });
});

describe("a server that is killed while its disk grows", () => {
  it.each([
    { name: "alone", behind: 0 },
    { name: "over a longer backing image", behind: 5 * MIB },
  ])("loses nothing that it had acknowledged, whichever call was the last: $name", async ({ behind }) => {
    const below = memoryStorage(taggedBytes(9, 0, behind));
    const backed = (): { readonly backing?: BlockDevice } =>
      behind === 0 ? {} : { backing: openRaw(borrowedStorage(below), { readOnly: true }) };
    const memory = await imageInMemory(SMALL);
    const place = new MemoryJournal();
    const journal = new ChangeJournal(place);
    let acknowledged = withZeros(below.bytes().subarray(0, SMALL.size), SMALL.size);
    const sizes = new Set([SMALL.size]);
    const kills: { image: Uint8Array; journal: Uint8Array | undefined; held: Uint8Array; sizes: number[] }[] = [];
    const watched = new WatchedStorage(memory);
    const device: BlockDevice = await openQcow2(watched, { journal, ...backed() });
    const write = async (at: number): Promise<void> => {
      await device.write(at, taggedBytes(at, at, 512));
      journal.commit();
      acknowledged = acknowledged.slice();
      acknowledged.set(taggedBytes(at, at, 512), at);
    };
    await write(40 * KIB);
    watched.onChange = () => {
      kills.push({ image: memory.bytes().slice(), journal: place.load(), held: acknowledged, sizes: [...sizes] });
    };
    for (const size of [200 * KIB, L1_CLUSTER_COVERS - 512, L1_CLUSTER_COVERS + 512]) {
      await write(device.size - 512);
      const old = device.size;
      sizes.add(size);
      await device.grow?.(size);
      journal.commit();
      sizes.delete(old);
      acknowledged = withZeros(acknowledged, size);
      await write(size - 1024);
    }
    expect(kills.length).toBeGreaterThan(40);
    for (const [index, kill] of kills.entries()) {
      const image = memoryStorage(kill.image);
      const again = await openQcow2(image, {
        journal: new ChangeJournal(new MemoryJournal(kill.journal)),
        ...backed(),
      });
      expect(kill.sizes).toContain(again.size);
      const found = await contentsOf(again);
      // The last request was not acknowledged: half a KiB somewhere may be new.
      const expected = withZeros(kill.held, again.size);
      const wrong = new Set<number>();
      for (let at = 0; at < found.length; at += 512) {
        if (Buffer.compare(found.subarray(at, at + 512), expected.subarray(at, at + 512)) !== 0) wrong.add(at);
      }
      for (const at of wrong) expectSameBytes(found.subarray(at, at + 512), taggedBytes(at, at, 512), `kill ${index}`);
      expect(wrong.size).toBeLessThanOrEqual(1);
      await again.close();
      expectCounted(image);
    }
  });
});

/** Disks that are cut in the header alone, so that what they had goes on behind their end. */
const CUT: readonly [name: string, options: Partial<CreateQcow2Options>, compressed: boolean][] = [
  ["plain", {}, false],
  ["version 2", { compat: "0.10" }, false],
  ["subclusters", { clusterSize: 16 * KIB, extendedL2: true }, false],
  ["compressed", {}, true],
];

describe("what an image has behind the end of its disk", () => {
  it.each(CUT)("does not show when the disk grows: %s", async (_name, options, compressed) => {
    const [whole, cut] = [256 * KIB, 101 * KIB];
    const storage = await imageInMemory({ size: whole, clusterSize: 4 * KIB, ...options });
    const filled = await openGrowing(storage);
    const bytes = compressibleBytes(1, 0, whole);
    await (compressed ? filled.writeCompressed(0, bytes) : filled.write(0, bytes));
    await filled.close();
    await storage.write(24, new Uint8Array(new BigUint64Array([BigInt(cut)]).buffer).toReversed());
    const device = await openGrowing(storage);
    await device.grow(103 * KIB);
    await device.grow(200 * KIB + 512);
    expectSameBytes(await contentsOf(device), withZeros(bytes.subarray(0, cut), 200 * KIB + 512), "grown");
    await device.close();
    expect(referenceCheck(storage.bytes())).toMatchObject({ corruptions: [], leaks: [] });
  });

  it.each([false, true])("does not show in a data file that is longer (raw: %s)", async (dataFileRaw) => {
    const { createQcow2 } = await import("../../../../src/formats/qcow2/create.js");
    const [storage, data] = [memoryStorage(), memoryStorage()];
    await createQcow2(
      storage,
      { size: 101 * KIB, clusterSize: 4 * KIB, dataFile: "d", dataFileRaw },
      { dataFile: data },
    );
    const filled = await openGrowing(storage, { files: () => ({ dataFile: data }) });
    await filled.write(0, taggedBytes(1, 0, 101 * KIB));
    await filled.close();
    const file = memoryStorage(data.bytes());
    await file.write(101 * KIB, new Uint8Array(40 * KIB).fill(0x77));
    const device = await openGrowing(storage, { files: () => ({ dataFile: file }) });
    await device.grow(300 * KIB);
    const expected = withZeros(taggedBytes(1, 0, 101 * KIB), 300 * KIB);
    expectSameBytes(await contentsOf(device), expected, "grown");
    await device.write(299 * KIB, taggedBytes(2, 0, KIB));
    expected.set(taggedBytes(2, 0, KIB), 299 * KIB);
    const kinds = new Set<string>();
    for await (const { kind, offset } of device.extents(104 * KIB, 196 * KIB)) kinds.add(`${kind} ${offset}`);
    if (dataFileRaw) {
      expectSameBytes(file.bytes().subarray(0, 300 * KIB), expected, "the data file");
      expect([...kinds]).toEqual([`data ${104 * KIB}`]);
    }
    expect(file.size()).toBe(300 * KIB);
    await device.close();
    expectCounted(storage);
  });
});

describe("requests in flight while a disk grows", () => {
  it.each([
    { name: "4 KiB clusters", options: { clusterSize: 4 * KIB } },
    { name: "subclusters", options: { clusterSize: 16 * KIB, extendedL2: true } },
  ])("take nothing from what is written behind the old end: $name", async ({ options }) => {
    const old = 41.5 * KIB;
    for (let seed = 1; seed <= 120; seed++) {
      const random = new Random(seed);
      const storage = await imageInMemory({ size: old, ...options });
      const device = await openGrowing(new JitteryStorage(storage, random));
      await device.write(0, new Uint8Array(old).fill(1));
      const from = random.pick([0, 32 * KIB, 36 * KIB, 40 * KIB]);
      const jobs: unknown[] = [
        random.chance(0.5) ? device.discard(from, old - from) : device.writeZeroes(from, old - from, { unmap: true }),
        device.grow(60 * KIB).then(() => device.write(old, taggedBytes(seed, old, 4 * KIB))),
      ];
      await new Promise((resolve) => setImmediate(resolve));
      jobs.push(device.discard(40 * KIB, old - 40 * KIB));
      await Promise.all(jobs);
      const bytes = await contentsOf(device);
      const expected = taggedBytes(seed, old, 4 * KIB);
      expectSameBytes(bytes.subarray(old, old + expected.length), expected, `seed ${seed}`);
      expect(bytes.subarray(old + expected.length).every((byte) => byte === 0)).toBe(true);
      await device.close();
      expectCounted(storage);
    }
  });

  it.each(["before it began", "while it goes on"])(
    "end where the disk ended that they were sent to: %s",
    async (when) => {
      const [old, cluster] = [41.5 * KIB, 4 * KIB];
      const storage = new HoldingStorage(await imageInMemory({ size: old, clusterSize: cluster }));
      const device = await openGrowing(storage);
      await device.write(8 * cluster, taggedBytes(1, 0, old - 8 * cluster));
      // Who wants to erase the clusters beside these waits for the writes to them.
      const writes = [0, 6].map((index) => device.write(index * cluster, HELD));
      const early =
        when === "before it began" ? device.discard(6 * cluster, old - 6 * cluster) : device.discard(0, cluster);
      const grown = device.grow(60 * KIB).then(() => device.write(old, taggedBytes(2, old, cluster)));
      await turns();
      const late = device.discard(6 * cluster, old - 6 * cluster);
      await turns();
      storage.letGo((number) => number === 0);
      await turns();
      storage.letGo(() => true);
      await Promise.all([...writes, early, grown, late]);
      const bytes = await contentsOf(device);
      expectSameBytes(bytes.subarray(old, old + cluster), taggedBytes(2, old, cluster), "behind the old end");
      await device.close();
      expectCounted(storage.memory);
    },
  );

  it("do not bring back what the backing image has behind the old end", async () => {
    const behind = taggedBytes(9, 0, 80 * KIB);
    const old = 41.5 * KIB;
    for (let seed = 1; seed <= 60; seed++) {
      const random = new Random(seed);
      const storage = await imageInMemory({ size: old, clusterSize: 16 * KIB });
      const backing = openRaw(memoryStorage(behind), { readOnly: true });
      const device: BlockDevice = await openQcow2(new JitteryStorage(storage, random), { backing });
      const expected = withZeros(behind.subarray(0, old), 100 * KIB);
      const write = async (at: number): Promise<void> => {
        expected.set(taggedBytes(seed, at, 512), at);
        await device.write(at, taggedBytes(seed, at, 512));
      };
      const jobs = [write(33 * KIB), device.grow?.(100 * KIB), write(40 * KIB)];
      await new Promise((resolve) => setImmediate(resolve));
      jobs.push(write(35 * KIB), write(12 * KIB));
      await Promise.all(jobs);
      expectSameBytes(await contentsOf(device), expected, `seed ${seed}`);
      await device.close();
    }
  });
});

describe("the bitmaps of a disk that grows", () => {
  async function withBitmaps(): Promise<MemoryStorage> {
    const storage = await imageInMemory({ size: 150 * KIB + 512, clusterSize: 512 });
    await changeBitmap(storage, { ...qcow2, name: "fine", actions: [{ do: "add", granularity: 512 }] });
    await changeBitmap(storage, { ...qcow2, name: "rough", actions: [{ do: "add", granularity: 64 * KIB }] });
    const device = await openGrowing(storage);
    await device.write(0, taggedBytes(1, 0, 1024));
    await device.write(150 * KIB, taggedBytes(2, 0, 512));
    await device.close();
    await changeBitmap(storage, { ...qcow2, name: "still", actions: [{ do: "add" }, { do: "disable" }] });
    return storage;
  }
  const marked = (device: Awaited<ReturnType<typeof openGrowing>>, name: string): string[] =>
    [...(device.dirtyBits(name)?.ranges() ?? [])].map(({ offset, length }) => `${offset / KIB}+${length / KIB}`);

  it("grow with it, and record what is written there", async () => {
    const storage = await withBitmaps();
    const device = await openGrowing(storage);
    const fine = device.dirtyBits("fine");
    await device.grow(4 * MIB);
    expect(device.dirtyBits("fine")).toBe(fine);
    expect(marked(device, "fine")).toEqual(["0+1", "150+0.5"]);
    expect(marked(device, "rough")).toEqual(["0+64", "128+64"]);
    await device.write(3 * MIB, taggedBytes(3, 0, 512));
    for (let open = device, round = 0; round < 2; round++) {
      expect(marked(open, "fine")).toEqual(["0+1", "150+0.5", "3072+0.5"]);
      expect(marked(open, "rough")).toEqual(["0+64", "128+64", "3072+64"]);
      expect(marked(open, "still")).toEqual([]);
      expect(open.dirtyBits("still")?.size).toBe(4 * MIB);
      await open.close();
      open = await openGrowing(storage);
    }
    expect(referenceCheck(storage.bytes()).corruptions).toEqual([]);
  });

  it("keep a disk from growing when one is inconsistent, and nothing changes", async () => {
    const storage = await withBitmaps();
    const crashed = await openGrowing(storage);
    await crashed.write(0, taggedBytes(5, 0, 512));
    await crashed.flush();
    const killed = memoryStorage(storage.bytes());
    const device = await openGrowing(killed);
    await expect(device.grow(4 * MIB)).rejects.toMatchObject({ code: "BITMAP_INCONSISTENT" });
    expect(device.size).toBe(150 * KIB + 512);
    await device.close();
    expect(Buffer.compare(killed.bytes(), storage.bytes())).toBe(0);
  });
});

describe("a disk that cannot grow", () => {
  it("is of version 2 and has snapshots", async () => {
    const { createSnapshot } = await import("../../../../src/jobs/snapshot.js");
    const storage = await imageInMemory({ ...SMALL, compat: "0.10" });
    await createSnapshot(storage, { ...qcow2, name: "one" });
    const before = storage.bytes();
    const device = await openGrowing(storage);
    await expect(device.grow(MIB)).rejects.toMatchObject({ code: "NOT_SUPPORTED" });
    await device.close();
    expect(Buffer.compare(storage.bytes(), before)).toBe(0);
  });

  it("would need too long an L1 table", async () => {
    const storage = await imageInMemory(SMALL);
    const device = await openGrowing(storage);
    await expect(device.grow(2 ** 40)).rejects.toMatchObject({ code: "FILE_TOO_LARGE" });
    expect(device.size).toBe(SMALL.size);
    await device.close();
  });

  it("is zoned", async () => {
    const device = await openQcow2(
      await imageInMemory({ size: MIB, clusterSize: 4 * KIB, zone: { mode: "host-managed", size: 256 * KIB } }),
    );
    expect(device).not.toHaveProperty("grow");
    await device.close();
  });
});

const FAULTS: readonly Fault[] = [
  { type: "error" },
  { type: "error", code: "NO_SPACE" },
  { type: "torn", bytes: 512 },
  { type: "lost" },
];
const NEW_SIZE = 5 * MIB;

/** True when a flush failed that was to make data durable: none succeeds any more, and the image has to be opened again. */
async function flushFails(device: { flush(): unknown }, { faults }: FaultStorage): Promise<boolean> {
  try {
    await device.flush();
    return false;
  } catch (error) {
    if (faults.at(-1)?.kind !== "flush") throw error;
    return true;
  }
}

describe.each(FAULTS)("a disk whose storage fails while it grows: %o", (fault) => {
  it.each([
    { name: "alone", behind: 0, options: {} },
    { name: "over a longer backing image", behind: 300 * KIB, options: {} },
    { name: "with lazy counts", behind: 0, options: { lazyRefcounts: true } },
  ])("keeps its size and works on, whichever call it is: $name", async ({ behind, options }) => {
    const below = memoryStorage(taggedBytes(9, 0, behind));
    const files =
      behind === 0 ? {} : { files: () => ({ backing: openRaw(borrowedStorage(below), { readOnly: true }) }) };
    const storage = await imageInMemory({ ...SMALL, ...options });
    const filled = await openGrowing(storage, files);
    await filled.write(10 * KIB, taggedBytes(1, 0, 60 * KIB));
    const before = await contentsOf(filled);
    await filled.close();
    for (let nth = 1, reached = true; reached; nth++) {
      const memory = memoryStorage(storage.bytes());
      const failing = faultStorage(memory, {});
      const device = await openGrowing(failing, files);
      failing.plan({ rules: [{ fault, nth }] });
      const error = await device.grow(NEW_SIZE).then(
        () => undefined,
        (cause: unknown) => cause,
      );
      reached = failing.faults.length > 0;
      failing.heal();
      if (error !== undefined) {
        if (!isZcowError(error) || error.code === "IMAGE_CORRUPT") throw new Error(`call ${nth}`, { cause: error });
        expect(device.size).toBe(SMALL.size);
      }
      const expected = withZeros(before, device.size);
      expectSameBytes(await contentsOf(device), expected, `call ${nth}`);
      await device.write(SMALL.size - 1024, taggedBytes(2, 0, 1024));
      expected.set(taggedBytes(2, 0, 1024), SMALL.size - 1024);
      const isLost = await flushFails(device, failing);
      if (!isLost) {
        expect(sizesOf(memory).size).toBe(device.size);
        if (error !== undefined && nth % 2 === 0) await device.grow(NEW_SIZE);
      }
      const size = device.size;
      await device.close().catch((cause: unknown) => {
        if (!isLost) throw cause;
      });
      if (isLost) {
        expect(referenceCheck(memory.bytes()).corruptions).toEqual([]);
        // The last write was never flushed.
        const reopened = await contentsOf(await openGrowing(memory, files));
        reopened.set(expected.subarray(SMALL.size - 1024, SMALL.size), SMALL.size - 1024);
        expectSameBytes(reopened, withZeros(expected, size), `call ${nth}, opened again`);
        continue;
      }
      expect(referenceCheck(memory.bytes())).toMatchObject({ corruptions: [], leaks: [] });
      const again = await openGrowing(memory, files);
      expectSameBytes(await contentsOf(again), withZeros(expected, size), `call ${nth}, opened again`);
    }
  });
});
