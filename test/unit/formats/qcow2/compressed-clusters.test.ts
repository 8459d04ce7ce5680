import { deflateRawSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { DECOMPRESSED_CACHE_BYTES } from "../../../../src/formats/qcow2/compressed-clusters.js";
import type { CreateQcow2Options } from "../../../../src/formats/qcow2/create-options.js";
import { INCOMPATIBLE } from "../../../../src/formats/qcow2/features.js";
import { openQcow2 } from "../../../../src/formats/qcow2/open.js";
import { openRaw } from "../../../../src/formats/raw/device.js";
import { ForwardingStorage } from "../../../../src/storage/forwarding-storage.js";
import { type MemoryStorage, memoryStorage } from "../../../../src/storage/memory-storage.js";
import { tracingStorage } from "../../../../src/storage/tracing-storage.js";
import { expectSound, imageInMemory } from "../../../support/engine-images.js";
import { compressibleBytes, taggedBytes } from "../../../support/random.js";
import { ReferenceImage } from "../../../support/reference-image.js";

const CLUSTER = 65_536;
const MiB = 1024 * 1024;
/** Where the layout of a fresh image has them; the first L2 table comes after the L1 table. */
const L1_TABLE = 3 * CLUSTER;
const L2_TABLE = 4 * CLUSTER;

/** Noise for the first `share` of the cluster, zeros after it: shrinks to a little more than that share. */
function shrinking(cluster: number, share: number, clusterSize = CLUSTER): Uint8Array {
  const bytes = new Uint8Array(clusterSize);
  let state = cluster * 7 + 1;
  for (let at = 0; at < clusterSize * share; at++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}

async function newDisk(options: Partial<CreateQcow2Options> = {}): Promise<MemoryStorage> {
  return imageInMemory({ size: 16 * MiB, ...options });
}

async function readAll(storage: MemoryStorage, offset: number, length: number): Promise<Uint8Array> {
  const device = await openQcow2(memoryStorage(storage.bytes()), { readOnly: true });
  const bytes = new Uint8Array(length);
  await device.read(offset, bytes);
  await device.close();
  return bytes;
}

/** Host offset and length of the compressed data of a guest cluster. */
function placeOf(storage: MemoryStorage, cluster: number): { readonly from: number; readonly length: number } {
  const { kind, hostOffset, length = 0 } = new ReferenceImage(storage.bytes()).mapping(cluster);
  expect(kind).toBe("compressed");
  return { from: hostOffset, length };
}

describe("where compressed data goes", () => {
  it("clusters are packed one after the other, into the next host cluster where that is free", async () => {
    const storage = await newDisk();
    const device = await openQcow2(storage, {});
    const all = [0, 1, 2, 3].map((cluster) => shrinking(cluster, 0.7));
    for (const [cluster, bytes] of all.entries()) await device.writeCompressed(cluster * CLUSTER, bytes);
    await device.close();
    const places = all.map((_, cluster) => placeOf(storage, cluster));
    for (let i = 1; i < places.length; i++) {
      const [before, place] = [places[i - 1], places[i]];
      // The descriptor counts whole sectors: the next data starts within the last of them.
      const gap = (before?.from ?? 0) + (before?.length ?? 0) - (place?.from ?? 0);
      expect(gap).toBeGreaterThanOrEqual(0);
      expect(gap).toBeLessThan(512);
    }
    const image = new ReferenceImage(storage.bytes());
    expect([5, 6, 7, 8].map((cluster) => image.refcount(cluster))).toEqual([2, 2, 2, 0]);
    expectSound(storage.bytes());
    expect(Buffer.compare(await readAll(storage, 0, 4 * CLUSTER), Buffer.concat(all))).toBe(0);
  });

  it("data that would cross into a cluster that is taken begins in a new one", async () => {
    const storage = await newDisk();
    const device = await openQcow2(storage, {});
    await device.writeCompressed(0, shrinking(0, 0.7));
    await device.write(CLUSTER, taggedBytes(1, 0, CLUSTER));
    await device.writeCompressed(2 * CLUSTER, shrinking(2, 0.7));
    await device.close();
    expect(placeOf(storage, 2).from).toBe(7 * CLUSTER);
    expectSound(storage.bytes());
  });

  it.each([1, 2])("no more clusters share a host cluster than its %i-bit count can count", async (refcountBits) => {
    const storage = await newDisk({ refcountBits });
    const device = await openQcow2(storage, {});
    await device.writeCompressed(0, compressibleBytes(1, 0, 8 * CLUSTER));
    await device.close();
    const hosts = Array.from({ length: 8 }, (_, cluster) => Math.floor(placeOf(storage, cluster).from / CLUSTER));
    expect(hosts).toEqual(refcountBits === 1 ? [5, 6, 7, 8, 9, 10, 11, 12] : [5, 5, 5, 6, 6, 6, 7, 7]);
    expectSound(storage.bytes());
  });

  it("clusters that do not shrink are stored as they are", async () => {
    const storage = await newDisk();
    const device = await openQcow2(storage, {});
    const noise = shrinking(1, 1);
    await device.writeCompressed(0, Buffer.concat([noise, compressibleBytes(1, CLUSTER, CLUSTER)]));
    await device.close();
    const image = new ReferenceImage(storage.bytes());
    expect(image.mapping(0)).toMatchObject({ kind: "data", copied: true });
    expect(image.mapping(1).kind).toBe("compressed");
    expect(Buffer.compare(await readAll(storage, 0, CLUSTER), noise)).toBe(0);
  });

  it("the last cluster of the disk may be short, and the file ends with a whole sector", async () => {
    const storage = await newDisk({ size: 2 * CLUSTER + 1024 });
    const device = await openQcow2(storage, {});
    const bytes = compressibleBytes(1, 0, device.size);
    await device.writeCompressed(0, bytes);
    await device.close();
    expect(storage.size() % 512).toBe(0);
    expect(Buffer.compare(await readAll(storage, 0, bytes.length), bytes)).toBe(0);
  });

  it("space is given back when the last cluster in it is gone, and not before", async () => {
    const storage = await newDisk();
    const device = await openQcow2(storage, {});
    await device.writeCompressed(0, compressibleBytes(1, 0, 3 * CLUSTER));
    await device.flush();
    const counts: number[] = [];
    for (const cluster of [1, 0, 2]) {
      await device.discard(cluster * CLUSTER, CLUSTER);
      await device.flush();
      await device.flush();
      counts.push(new ReferenceImage(storage.bytes()).refcount(5));
    }
    expect(counts).toEqual([2, 1, 0]);
    await device.close();
    expectSound(storage.bytes());
  });

  it("no data joins a host cluster that is being given back", async () => {
    const memory = await newDisk();
    let release = (): void => undefined;
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    let reached = (): void => undefined;
    const punching = new Promise<void>((resolve) => {
      reached = resolve;
    });
    let armed = false;
    class SlowPunch extends ForwardingStorage {
      override async writeZeroes(at: number, length: number, options?: { readonly unmap?: boolean }): Promise<void> {
        if (armed) {
          reached();
          await gate;
        }
        await this.inner.writeZeroes(at, length, options);
      }
    }
    const device = await openQcow2(new SlowPunch(memory), {});
    await device.writeCompressed(0, compressibleBytes(1, 0, CLUSTER));
    await device.flush();
    await device.discard(0, CLUSTER);
    armed = true;
    const flushed = device.flush();
    await punching;
    const bytes = compressibleBytes(2, CLUSTER, CLUSTER);
    await device.writeCompressed(CLUSTER, bytes);
    release();
    await flushed;
    await device.close();
    expect(Buffer.compare(await readAll(memory, CLUSTER, CLUSTER), bytes)).toBe(0);
    expectSound(memory.bytes());
  });
});

describe("compressed writes are refused", () => {
  it("of parts of clusters, past the end, on read-only disks, and on raw ones", async () => {
    const storage = await newDisk({ size: 2 * CLUSTER + 1024 });
    const device = await openQcow2(storage, {});
    const of = (length: number): Uint8Array => new Uint8Array(length);
    expect(() => device.writeCompressed(512, of(CLUSTER))).toThrow(expect.objectContaining({ code: "MISALIGNED" }));
    expect(() => device.writeCompressed(0, of(512))).toThrow(expect.objectContaining({ code: "MISALIGNED" }));
    expect(() => device.writeCompressed(2 * CLUSTER, of(512))).toThrow(expect.objectContaining({ code: "MISALIGNED" }));
    expect(() => device.writeCompressed(4 * CLUSTER, of(CLUSTER))).toThrow(
      expect.objectContaining({ code: "OUT_OF_RANGE" }),
    );
    await device.close();
    const reader = await openQcow2(memoryStorage(storage.bytes()), { readOnly: true });
    expect(() => reader.writeCompressed(0, of(CLUSTER))).toThrow(expect.objectContaining({ code: "READ_ONLY" }));
    const raw = openRaw(memoryStorage(of(CLUSTER)));
    expect(() => raw.writeCompressed(0, of(CLUSTER))).toThrow(expect.objectContaining({ code: "NOT_SUPPORTED" }));
  });

  it("where something is stored, compressed or not; zeros are replaced", async () => {
    const storage = await newDisk();
    const device = await openQcow2(storage, {});
    const bytes = compressibleBytes(1, 0, CLUSTER);
    const refusal = { code: "COMPRESSED_REWRITE", errno: "EIO" };
    await device.write(0, bytes);
    await expect(device.writeCompressed(0, bytes)).rejects.toMatchObject(refusal);
    await device.writeZeroes(0, CLUSTER, { unmap: false });
    await expect(device.writeCompressed(0, bytes)).rejects.toMatchObject(refusal);
    await device.writeZeroes(0, CLUSTER, { unmap: true });
    await device.writeCompressed(0, bytes);
    await expect(device.writeCompressed(0, bytes)).rejects.toMatchObject(refusal);
    await device.close();
    expectSound(storage.bytes());
    expect(Buffer.compare(await readAll(storage, 0, CLUSTER), bytes)).toBe(0);
  });
});

describe("reading compressed clusters", () => {
  async function filled(clusters: number, options: Partial<CreateQcow2Options> = {}): Promise<MemoryStorage> {
    const storage = await newDisk(options);
    const device = await openQcow2(storage, {});
    await device.writeCompressed(0, compressibleBytes(1, 0, clusters * device.limits.optimalAlignment));
    await device.close();
    return memoryStorage(storage.bytes());
  }

  it("many readers of one cluster share one decompression, and later ones find it", async () => {
    const storage = await filled(2);
    let reads = 0;
    const { from } = placeOf(storage, 1);
    const counting = tracingStorage(storage, ({ kind, at }) => {
      if (kind === "read" && at === from) reads += 1;
    });
    const device = await openQcow2(counting, { readOnly: true });
    const parts = Array.from({ length: 16 }, () => new Uint8Array(4096));
    await Promise.all(parts.map((part, index) => device.read(CLUSTER + index * 4096, part)));
    expect(Buffer.compare(Buffer.concat(parts), compressibleBytes(1, CLUSTER, CLUSTER))).toBe(0);
    expect(device.read(CLUSTER + 100, new Uint8Array(512))).toBeUndefined();
    expect(reads).toBe(1);
    await device.close();
  });

  it("keeps no more than its limit", async () => {
    const clusterSize = 2 * MiB;
    const kept = DECOMPRESSED_CACHE_BYTES / clusterSize;
    const storage = await filled(kept + 2, { size: 64 * MiB, clusterSize });
    let reads = 0;
    const first = placeOf(storage, 0).from;
    const counting = tracingStorage(storage, ({ kind, at }) => {
      if (kind === "read" && at === first) reads += 1;
    });
    const device = await openQcow2(counting, { readOnly: true });
    for (const cluster of [0, 1, 0, 2, 3, 4, 5, 6, 7, 0, 8, 9]) {
      await device.read(cluster * clusterSize, new Uint8Array(512));
    }
    expect(reads).toBe(1);
    for (const cluster of [1, 2, 3, 4, 5, 6, 7, 8]) await device.read(cluster * clusterSize, new Uint8Array(512));
    await device.read(0, new Uint8Array(512));
    expect(reads).toBe(2);
    await device.close();
  });

  it("keeps nothing of clusters that are read as a whole, as copies do", async () => {
    const storage = await filled(2);
    let reads = 0;
    const { from } = placeOf(storage, 0);
    const counting = tracingStorage(storage, ({ kind, at }) => {
      if (kind === "read" && at === from) reads += 1;
    });
    const device = await openQcow2(counting, { readOnly: true });
    await device.read(0, new Uint8Array(2 * CLUSTER));
    expect(reads).toBe(1);
    const part = new Uint8Array(512);
    const again = device.read(0, part);
    expect(again).toBeInstanceOf(Promise);
    await again;
    expect(part).toEqual(compressibleBytes(1, 0, 512));
    expect(reads).toBe(2);
    await device.close();
  });

  it("a cluster that was rewritten is read anew", async () => {
    const storage = await filled(1);
    const device = await openQcow2(storage, {});
    await device.read(0, new Uint8Array(512));
    await device.discard(0, CLUSTER);
    const bytes = compressibleBytes(9, 0, CLUSTER);
    for (let round = 0; round < 3; round++) await device.flush();
    await device.writeCompressed(0, bytes);
    const now = new Uint8Array(CLUSTER);
    await device.read(0, now);
    expect(Buffer.compare(now, bytes)).toBe(0);
    await device.close();
  });

  describe("of a damaged image fails with the guest offset and the file offset", () => {
    async function damaged(entry: bigint, patch?: (bytes: Uint8Array) => void): Promise<MemoryStorage> {
      const bytes = (await filled(1)).bytes();
      new DataView(bytes.buffer).setBigUint64(L2_TABLE, entry);
      patch?.(bytes);
      return memoryStorage(bytes);
    }
    const compressedAt = (offset: number, sectors: number): bigint =>
      (1n << 62n) | (BigInt(sectors) << 54n) | BigInt(offset);

    it.each([
      ["past the end of the file", compressedAt(2 ** 40, 3), /lies past the end of the file/],
      ["in the header", compressedAt(512, 3), /cannot be decompressed/],
      ["in the L2 table itself", compressedAt(L2_TABLE, 255), /cannot be decompressed/],
      ["as long as can be, to the end of the file", compressedAt(5 * CLUSTER + 3, 255), /cannot be decompressed/],
    ])("data %s", async (_name, entry, text) => {
      const storage = await damaged(entry);
      const before = storage.bytes();
      const device = await openQcow2(storage, {});
      const into = new Uint8Array(512);
      const refusal = { code: "COMPRESSED_DATA", errno: "EIO", message: expect.stringMatching(text) as string };
      await expect(async () => device.read(0, into)).rejects.toMatchObject(refusal);
      await expect(async () => device.read(0, into)).rejects.toMatchObject({ data: { value: 0 } });
      await expect(async () => device.write(512, into)).rejects.toMatchObject({ code: "COMPRESSED_DATA" });
      await device.close();
      expect(Buffer.compare(before, storage.bytes())).toBe(0);
    });

    it("data that is cut off, a bomb, or of the other method", async () => {
      for (const data of [
        deflateRawSync(compressibleBytes(1, 0, CLUSTER)).subarray(0, 40),
        deflateRawSync(new Uint8Array(32 * MiB), { windowBits: 12 }),
        Uint8Array.of(
          0x28,
          0xb5,
          0x2f,
          0xfd,
          0x60,
          0,
          0xff,
          0x55,
          0,
          0,
          0x10,
          0xcd,
          0xcd,
          1,
          0,
          0xfb,
          0x7f,
          0x1d,
          0x60,
          1,
        ),
      ]) {
        const at = 5 * CLUSTER;
        const storage = await damaged(compressedAt(at, 127), (bytes) => {
          bytes.fill(0, at);
          bytes.set(data.subarray(0, bytes.length - at), at);
        });
        const device = await openQcow2(storage, { readOnly: true });
        await expect(async () => device.read(0, new Uint8Array(512))).rejects.toMatchObject({
          code: "COMPRESSED_DATA",
        });
        await device.close();
      }
    });

    it("data in a cluster of metadata: dropping it marks the image corrupt and leaves the metadata in place", async () => {
      const hidden = deflateRawSync(new Uint8Array(CLUSTER).fill(7), { windowBits: 12 });
      const storage = await damaged(compressedAt(L1_TABLE + 4096, 1), (bytes) => bytes.set(hidden, L1_TABLE + 4096));
      const l1 = storage.bytes().subarray(L1_TABLE, L1_TABLE + CLUSTER);
      const device = await openQcow2(storage, {});
      const bytes = new Uint8Array(512);
      await device.read(0, bytes);
      expect(new Set(bytes)).toEqual(new Set([7]));
      await device.discard(0, CLUSTER);
      await device.flush();
      await expect(async () => device.write(CLUSTER, bytes)).rejects.toMatchObject({ code: "IMAGE_CORRUPT" });
      await device.close();
      const after = storage.bytes();
      expect(new DataView(after.buffer).getBigUint64(72) & INCOMPATIBLE.corrupt).toBe(INCOMPATIBLE.corrupt);
      expect(Buffer.compare(after.subarray(L1_TABLE, L1_TABLE + CLUSTER), l1)).toBe(0);
      expect(new ReferenceImage(after).refcount(3)).toBe(1);
    });
  });
});
