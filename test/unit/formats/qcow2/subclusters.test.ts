import { describe, expect, test } from "vitest";
import type { BlockExtent } from "../../../../src/block/block-device.js";
import type { Qcow2Device } from "../../../../src/formats/qcow2/device.js";
import { openQcow2 } from "../../../../src/formats/qcow2/open.js";
import { subclusterMask } from "../../../../src/formats/qcow2/subclusters.js";
import { type MemoryStorage, memoryStorage } from "../../../../src/storage/memory-storage.js";
import { expectSound, imageInMemory } from "../../../support/engine-images.js";
import { taggedBytes } from "../../../support/random.js";

/** 32 subclusters of 2 KiB in each cluster. */
const CLUSTER = 64 * 1024;
const SUB = CLUSTER / 32;
const SIZE = 8 * CLUSTER;

interface Entry {
  readonly host: number;
  readonly copied: boolean;
  readonly zeros: number;
  readonly stored: number;
}

async function freshImage(): Promise<MemoryStorage> {
  return imageInMemory({ size: SIZE, extendedL2: true });
}

async function open(storage: MemoryStorage): Promise<Qcow2Device> {
  return (await openQcow2(storage)) as Qcow2Device;
}

function viewOf(storage: MemoryStorage): DataView {
  const bytes = storage.bytes();
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** File offset of the entry of a guest cluster; there is one L2 table. */
function entryOffset(view: DataView, cluster: number): number {
  return Number(view.getBigUint64(Number(view.getBigUint64(40))) & 0x00ff_ffff_ffff_fe00n) + cluster * 16;
}

function entryOf(storage: MemoryStorage, cluster: number): Entry {
  const view = viewOf(storage);
  const at = entryOffset(view, cluster);
  const first = view.getBigUint64(at);
  return {
    host: Number(first & 0x00ff_ffff_ffff_fe00n),
    copied: first >> 63n === 1n,
    zeros: view.getUint32(at + 8),
    stored: view.getUint32(at + 12),
  };
}

/** Writes the entry of a cluster; whole image bytes come back as a new storage. */
function poked(storage: MemoryStorage, cluster: number, change: (view: DataView, at: number) => void): MemoryStorage {
  const bytes = storage.bytes().slice();
  const view = new DataView(bytes.buffer);
  change(view, entryOffset(view, cluster));
  return memoryStorage(bytes);
}

/** An image whose cluster 0 is stored whole, with the bytes of write 1. */
async function storedImage(): Promise<MemoryStorage> {
  const storage = await freshImage();
  const device = await open(storage);
  await device.write(0, taggedBytes(1, 0, CLUSTER));
  await device.close();
  return memoryStorage(storage.bytes().slice());
}

async function read(device: Qcow2Device, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length).fill(0xee);
  await device.read(offset, bytes);
  return bytes;
}

const mask = (first: number, end: number): number => subclusterMask(first, end) >>> 0;
const zeros = (length: number): Uint8Array => new Uint8Array(length);

describe("a write into an image with extended L2 entries", () => {
  test("stores the subclusters it touches and no others", async () => {
    const storage = await freshImage();
    const device = await open(storage);
    await device.write(3 * SUB + 100, taggedBytes(1, 0, 2 * SUB));
    await device.close();
    expect(entryOf(storage, 0)).toMatchObject({ copied: true, zeros: 0, stored: mask(3, 6) });
    expectSound(storage.bytes());
  });

  test("fills the host cluster that is there instead of moving it", async () => {
    const storage = await freshImage();
    const device = await open(storage);
    await device.write(0, taggedBytes(1, 0, SUB));
    await device.write(4 * SUB, taggedBytes(2, 0, SUB));
    await device.write(9 * SUB + 512, taggedBytes(3, 0, 512));
    await device.close();
    expect(entryOf(storage, 0).stored).toBe((mask(0, 1) | mask(4, 5) | mask(9, 10)) >>> 0);
    expectSound(storage.bytes());
    const again = await open(memoryStorage(storage.bytes().slice()));
    const expected = zeros(16 * SUB);
    expected.set(taggedBytes(1, 0, SUB), 0);
    expected.set(taggedBytes(2, 0, SUB), 4 * SUB);
    expected.set(taggedBytes(3, 0, 512), 9 * SUB + 512);
    expect(await read(again, 0, 16 * SUB)).toEqual(expected);
    await again.close();
  });

  test("of whole subclusters, and in place, is done in the same turn; so are reads of what is stored", async () => {
    const device = await open(await freshImage());
    await device.write(0, taggedBytes(1, 0, SUB));
    expect(device.write(2 * SUB, taggedBytes(2, 0, 2 * SUB))).toBeUndefined();
    expect(device.write(2 * SUB + 7, taggedBytes(3, 0, SUB))).toBeUndefined();
    expect(device.read(2 * SUB, new Uint8Array(2 * SUB))).toBeUndefined();
    await device.close();
  });

  test("uses a preallocated host cluster, subcluster by subcluster", async () => {
    const storage = await imageInMemory({ size: SIZE, extendedL2: true, preallocation: "metadata" });
    const before = entryOf(storage, 2);
    expect(before).toMatchObject({ copied: true, zeros: 0, stored: 0 });
    const device = await open(storage);
    expect(await read(device, 2 * CLUSTER, CLUSTER)).toEqual(zeros(CLUSTER));
    await device.write(2 * CLUSTER + SUB, taggedBytes(1, 0, 512));
    expect(await read(device, 2 * CLUSTER + SUB + 512, SUB - 512)).toEqual(zeros(SUB - 512));
    await device.close();
    expect(entryOf(storage, 2)).toEqual({ ...before, stored: mask(1, 2) });
    expectSound(storage.bytes());
  });
});

describe("zeros and discards by subcluster", () => {
  test("zeros turn the bits of whole subclusters and keep the host cluster", async () => {
    const storage = await storedImage();
    const { host } = entryOf(storage, 0);
    const device = await open(storage);
    await device.writeZeroes(4 * SUB, 3 * SUB, { unmap: false });
    expect(await read(device, 4 * SUB, 3 * SUB)).toEqual(zeros(3 * SUB));
    expect(await read(device, 0, 4 * SUB)).toEqual(taggedBytes(1, 0, CLUSTER).subarray(0, 4 * SUB));
    await device.close();
    expect(entryOf(storage, 0)).toMatchObject({ host, zeros: mask(4, 7), stored: ~mask(4, 7) >>> 0 });
    expectSound(storage.bytes());
  });

  test("the last stored subcluster to go takes the host cluster with it", async () => {
    const storage = await storedImage();
    const device = await open(storage);
    await device.discard(0, 20 * SUB);
    await device.discard(20 * SUB, 12 * SUB);
    await device.close();
    expect(entryOf(storage, 0)).toEqual({ host: 0, copied: false, zeros: 0xffff_ffff, stored: 0 });
    expectSound(storage.bytes());
  });

  test("a discard leaves subclusters alone that it covers in part", async () => {
    const storage = await storedImage();
    const device = await open(storage);
    await device.discard(SUB / 2, 2 * SUB);
    await device.close();
    expect(entryOf(storage, 0)).toMatchObject({ zeros: mask(1, 2), stored: ~mask(1, 2) >>> 0 });
    expectSound(storage.bytes());
  });

  test("zero subclusters without a host cluster get one when they are written, and stay zero around the data", async () => {
    const storage = await freshImage();
    const device = await open(storage);
    await device.writeZeroes(0, 8 * SUB, { unmap: true });
    await device.write(2 * SUB + 512, taggedBytes(1, 0, 512));
    await device.close();
    expect(entryOf(storage, 0)).toMatchObject({ zeros: (mask(0, 8) & ~mask(2, 3)) >>> 0, stored: mask(2, 3) });
    expectSound(storage.bytes());
  });
});

describe("a cluster that is shared", () => {
  /** As after a snapshot: not copied. */
  async function sharedImage(): Promise<MemoryStorage> {
    const storage = await freshImage();
    const device = await open(storage);
    await device.write(0, taggedBytes(1, 0, 4 * SUB));
    await device.write(10 * SUB, taggedBytes(2, 0, SUB));
    await device.writeZeroes(20 * SUB, SUB, { unmap: false });
    await device.close();
    return poked(storage, 0, (view, at) => view.setUint8(at, view.getUint8(at) & 0x7f));
  }

  test("moves with what is stored in it, and with nothing else", async () => {
    const storage = await sharedImage();
    const before = entryOf(storage, 0);
    const device = await open(storage);
    await device.write(2 * SUB + 5, taggedBytes(3, 0, 10));
    const expected = zeros(CLUSTER);
    expected.set(taggedBytes(1, 0, 4 * SUB));
    expected.set(taggedBytes(2, 0, SUB), 10 * SUB);
    expected.set(taggedBytes(3, 0, 10), 2 * SUB + 5);
    expect(await read(device, 0, CLUSTER)).toEqual(expected);
    await device.close();
    const after = entryOf(storage, 0);
    expect(after).toMatchObject({ copied: true, zeros: before.zeros, stored: before.stored });
    expect(after.host).not.toBe(before.host);
  });
});

describe("an extended entry that contradicts itself", () => {
  test.each([
    ["a subcluster both stored and zero", (view: DataView, at: number) => view.setUint32(at + 8, 1)],
    ["stored subclusters without a host cluster", (view: DataView, at: number) => view.setBigUint64(at, 0n)],
    ["subclusters of a compressed cluster", (view: DataView, at: number) => view.setUint8(at, 0x40)],
  ] as const)("%s is corrupt, for reading and for writing", async (_what, change) => {
    const storage = poked(await storedImage(), 0, change);
    const device = await open(storage);
    const code = { code: "IMAGE_CORRUPT" };
    await expect((async () => device.read(0, new Uint8Array(512)))()).rejects.toMatchObject(code);
    await expect((async () => device.write(SUB, new Uint8Array(512)))()).rejects.toMatchObject(code);
    await device.close();
    expect(viewOf(storage).getBigUint64(72) & 2n).toBe(2n);
  });
});

describe("the extents of an image with extended L2 entries", () => {
  test("tell subclusters of every state apart", async () => {
    const storage = await freshImage();
    const device = await open(storage);
    await device.write(SUB, taggedBytes(1, 0, 2 * SUB));
    await device.writeZeroes(2 * SUB, SUB, { unmap: false });
    const found: Pick<BlockExtent, "kind" | "length" | "zero">[] = [];
    for await (const { kind, length, zero } of device.extents(0, CLUSTER)) found.push({ kind, length, zero });
    await device.close();
    expect(found).toEqual([
      { kind: "unallocated", length: SUB, zero: true },
      { kind: "data", length: SUB, zero: false },
      { kind: "zero", length: SUB, zero: true },
      { kind: "unallocated", length: CLUSTER - 3 * SUB, zero: true },
    ]);
  });
});
