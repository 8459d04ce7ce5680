import { describe, expect, it } from "vitest";
import { hostOffset } from "../../../../src/base/units.js";
import { INCOMPATIBLE } from "../../../../src/formats/qcow2/features.js";
import { openEngine, openQcow2 } from "../../../../src/formats/qcow2/open.js";
import { type MemoryStorage, memoryStorage } from "../../../../src/storage/memory-storage.js";
import { expectSound, imageInMemory } from "../../../support/engine-images.js";

/** What the engine refuses, and what it leaves alone, on images that are damaged or marked. */

const CLUSTER = 65_536;
const SIZE = 64 * 1024 * 1024;
const REFBLOCK = 2 * CLUSTER;
const L1 = 3 * CLUSTER;
const INCOMPATIBLE_AT = 72;
const AUTOCLEAR_AT = 88;

const data = (value: number, length = CLUSTER): Uint8Array => new Uint8Array(length).fill(value);

function poke64(storage: MemoryStorage, at: number, value: bigint): void {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value);
  void storage.write(at, bytes);
}

function peek64(storage: MemoryStorage, at: number): bigint {
  return new DataView(storage.bytes().buffer).getBigUint64(at);
}

const isMarkedCorrupt = (storage: MemoryStorage): boolean =>
  (peek64(storage, INCOMPATIBLE_AT) & INCOMPATIBLE.corrupt) !== 0n;

/** An image with guest clusters 0 and 1 written: L2 table in cluster 4, data in 5 and 6. */
async function writtenImage(): Promise<MemoryStorage> {
  const storage = await imageInMemory({ size: SIZE });
  const device = await openQcow2(storage.clone(), {});
  await device.close();
  const writer = await openQcow2(storage, {});
  await writer.write(0, data(1, 2 * CLUSTER));
  await writer.flush();
  const copy = memoryStorage(storage.bytes());
  await writer.close();
  return copy;
}

async function expectWriteRefused(
  storage: MemoryStorage,
  text: RegExp,
  act?: (device: Awaited<ReturnType<typeof openQcow2>>) => unknown,
): Promise<void> {
  const device = await openQcow2(storage, {});
  const attempt = act ?? ((one): unknown => one.write(CLUSTER * 8, data(9)));
  const refusal = { code: "IMAGE_CORRUPT", stockText: expect.stringMatching(text) as string };
  await expect(async () => attempt(device)).rejects.toMatchObject(refusal);
  await expect(async () => device.write(0, data(9))).rejects.toMatchObject({ code: "IMAGE_CORRUPT" });
}

describe("metadata overlap", () => {
  const targets = [
    { name: "refcount table", offset: 0x8000_0000_0000_0000n + BigInt(CLUSTER) },
    { name: "refcount block", offset: 0x8000_0000_0000_0000n + BigInt(REFBLOCK) },
    { name: "active L1 table", offset: 0x8000_0000_0000_0000n + BigInt(L1) },
    { name: "active L2 table", offset: 0x8000_0000_0000_0000n + BigInt(4 * CLUSTER) },
  ];
  it.each(targets)(
    "an overwrite that the mapping sends into the $name is refused and marks the image",
    async ({ name, offset }) => {
      const storage = await writtenImage();
      poke64(storage, 4 * CLUSTER, offset);
      const before = storage.bytes();
      await expectWriteRefused(storage, new RegExp(`overlaps with ${name}`), (device) => device.write(0, data(9)));
      expect(isMarkedCorrupt(storage)).toBe(true);
      expect(Buffer.compare(storage.bytes().subarray(CLUSTER), before.subarray(CLUSTER))).toBe(0);
    },
  );

  it("a cluster that counts say is free but holds the L1 table is not handed out", async () => {
    const storage = await writtenImage();
    void storage.write(REFBLOCK + 3 * 2, new Uint8Array(2));
    await expectWriteRefused(storage, /overlaps with active L1 table/);
    expect(isMarkedCorrupt(storage)).toBe(true);
  });

  it("the header cluster is not handed out when its count is 0", async () => {
    const storage = await writtenImage();
    void storage.write(REFBLOCK, new Uint8Array(2));
    await expectWriteRefused(storage, /at offset 0/);
  });

  it("an L1 entry that points at the L1 table ends writing before anything is written", async () => {
    const storage = await writtenImage();
    poke64(storage, L1, 0x8000_0000_0000_0000n + BigInt(L1));
    const before = storage.bytes();
    await expectWriteRefused(storage, /overlaps with active L1 table/);
    expect(Buffer.compare(storage.bytes().subarray(CLUSTER), before.subarray(CLUSTER))).toBe(0);
  });

  it("a protected structure is refused like the engine's own", async () => {
    const storage = await writtenImage();
    const engine = await openEngine(storage, {});
    engine.protectMetadata("write-pointer table", hostOffset(5 * CLUSTER), CLUSTER);
    await expect(async () => engine.write(0, data(9))).rejects.toMatchObject({
      code: "IMAGE_CORRUPT",
      stockText: expect.stringContaining("write-pointer table") as string,
    });
    await engine.close();
  });

  it("a structure that is no longer protected can be written to", async () => {
    const engine = await openEngine(await writtenImage(), {});
    engine.protectMetadata("write-pointer table", hostOffset(5 * CLUSTER), CLUSTER);
    engine.unprotectMetadata("write-pointer table");
    await engine.write(0, data(9));
    await engine.close();
  });
});

describe("broken table entries", () => {
  const entries = [
    {
      name: "an unaligned L2 table",
      where: L1,
      value: 0x8000_0000_0004_0200n,
      text: /L2 table offset 0x40200 unaligned/,
    },
    { name: "reserved bits in L1", where: L1, value: 0x8100_0000_0004_0000n, text: /L2 table offset/ },
    {
      name: "an unaligned data cluster",
      where: 4 * CLUSTER,
      value: 0x8000_0000_0005_0400n,
      text: /Cluster allocation offset/,
    },
    {
      name: "reserved bits in L2",
      where: 4 * CLUSTER,
      value: 0x8000_0000_0005_0002n,
      text: /Cluster allocation offset/,
    },
    { name: "an L2 table past the end of the file", where: L1, value: 0x8000_1000_0000_0000n, text: /L2 table offset/ },
  ];
  it.each(entries)("$name: a read fails and marks a writable image", async ({ where, value, text }) => {
    const storage = await writtenImage();
    poke64(storage, where, value);
    const device = await openQcow2(storage, {});
    const into = new Uint8Array(512);
    await expect(async () => device.read(0, into)).rejects.toMatchObject({
      code: "IMAGE_CORRUPT",
      stockText: expect.stringMatching(text) as string,
    });
    expect(isMarkedCorrupt(storage)).toBe(true);
  });

  it.each(entries)("$name: a read fails and leaves a read-only image alone", async ({ where, value }) => {
    const storage = await writtenImage();
    poke64(storage, where, value);
    const before = storage.bytes();
    const device = await openQcow2(storage, { readOnly: true });
    await expect(async () => device.read(0, new Uint8Array(512))).rejects.toMatchObject({ code: "IMAGE_CORRUPT" });
    await device.close();
    expect(Buffer.compare(storage.bytes(), before)).toBe(0);
  });

  it("a compressed cluster without compressed data fails reads, and is no sign of corruption", async () => {
    const storage = await writtenImage();
    poke64(storage, 4 * CLUSTER, 0x4000_0000_0005_0000n);
    const device = await openQcow2(storage, {});
    const refusal = { code: "COMPRESSED_DATA", data: { offset: 5 * CLUSTER, value: 0 } };
    await expect(async () => device.read(0, new Uint8Array(512))).rejects.toMatchObject(refusal);
    await expect(async () => device.write(0, data(1, 512))).rejects.toMatchObject(refusal);
    expect(isMarkedCorrupt(storage)).toBe(false);
    await device.close();
  });
});

describe("header bits", () => {
  it("a marked image opens for reading only", async () => {
    const storage = await writtenImage();
    poke64(storage, INCOMPATIBLE_AT, INCOMPATIBLE.corrupt);
    await expect(openQcow2(storage, {})).rejects.toMatchObject({
      code: "QCOW2_MARKED_CORRUPT",
      stockText: expect.stringContaining("Image is corrupt; cannot be opened read/write") as string,
    });
    const device = await openQcow2(storage, { readOnly: true });
    const bytes = new Uint8Array(CLUSTER);
    await device.read(0, bytes);
    expect(bytes).toEqual(data(1));
    await device.close();
  });

  it("unknown autoclear bits go before the first write, and stay when there is none", async () => {
    const storage = await writtenImage();
    poke64(storage, AUTOCLEAR_AT, 1n << 40n);
    const unchanged = storage.clone();
    const reader = await openQcow2(unchanged, {});
    await reader.read(0, new Uint8Array(10));
    await reader.flush();
    expect(peek64(unchanged, AUTOCLEAR_AT)).toBe(1n << 40n);
    const writer = await openQcow2(storage, {});
    await writer.write(0, data(2, 512));
    expect(peek64(storage, AUTOCLEAR_AT)).toBe(0n);
    await writer.close();
  });

  it("a dirty image is repaired when opened for writing, and left alone when opened for reading", async () => {
    const storage = await imageInMemory({ size: SIZE, lazyRefcounts: true });
    const writer = await openQcow2(storage, {});
    await writer.write(0, data(3, 3 * CLUSTER));
    await writer.flush();
    const crashed = memoryStorage(storage.bytes());
    const before = crashed.bytes();
    const reader = await openQcow2(crashed.clone(), { readOnly: true });
    await reader.close();
    expect(Buffer.compare(crashed.bytes(), before)).toBe(0);
    const device = await openQcow2(crashed, {});
    const bytes = new Uint8Array(3 * CLUSTER);
    await device.read(0, bytes);
    expect(bytes).toEqual(data(3, 3 * CLUSTER));
    await device.close();
    expectSound(crashed.bytes());
  });
});

describe("counts that are too narrow or inconsistent", () => {
  it("an entry without the copied flag is copied before it is written", async () => {
    const storage = await writtenImage();
    poke64(storage, 4 * CLUSTER, 0x5_0000n);
    const device = await openQcow2(storage, {});
    await device.write(100, data(7, 10));
    const bytes = new Uint8Array(CLUSTER);
    await device.read(0, bytes);
    expect(bytes).toEqual(data(1).fill(7, 100, 110));
    await device.close();
    expectSound(storage.bytes());
    expect(storage.bytes()[5 * CLUSTER + 100]).not.toBe(7);
  });

  it("an L2 table without the copied flag is copied before it is changed", async () => {
    const storage = await writtenImage();
    poke64(storage, L1, BigInt(4 * CLUSTER));
    const device = await openQcow2(storage, {});
    await device.write(CLUSTER * 3, data(7));
    const bytes = new Uint8Array(4 * CLUSTER);
    await device.read(0, bytes);
    expect(bytes[0]).toBe(1);
    expect(bytes[3 * CLUSTER]).toBe(7);
    await device.close();
    expectSound(storage.bytes());
    expect(peek64(storage, L1)).not.toBe(BigInt(4 * CLUSTER));
  });
});
