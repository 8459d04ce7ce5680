import { describe, expect, it } from "vitest";
import type { BlockExtent } from "../../../../src/block/block-device.js";
import { openEngine, openQcow2 } from "../../../../src/formats/qcow2/open.js";
import { ForwardingStorage } from "../../../../src/storage/forwarding-storage.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { expectSound, imageInMemory } from "../../../support/engine-images.js";
import { Random } from "../../../support/random.js";

/** Sizes at which a loop per cluster, or a structure per cluster, would show. Calls are counted, not time. */

const KiB = 1024;
const GiB = 2 ** 30;
const TiB = 2 ** 40;
const REFCOUNT_TABLE_OFFSET_AT = 48;

class CountingStorage extends ForwardingStorage {
  calls = 0;
  override read(at: number, into: Uint8Array): Promise<void> | void {
    this.calls += 1;
    return super.read(at, into);
  }
  override write(at: number, from: Uint8Array): Promise<void> | void {
    this.calls += 1;
    return super.write(at, from);
  }
}

async function collect(extents: AsyncIterable<BlockExtent>): Promise<BlockExtent[]> {
  const all: BlockExtent[] = [];
  for await (const extent of extents) all.push(extent);
  return all;
}

describe("large images", () => {
  it("an empty image of 1 PiB is one extent, found without reading tables", async () => {
    const storage = new CountingStorage(await imageInMemory({ size: 1024 * TiB }));
    const device = await openQcow2(storage, { readOnly: true });
    storage.calls = 0;
    const extents = await collect(device.extents(0, device.size));
    expect(extents.map(({ offset, length, kind }) => ({ offset, length, kind }))).toEqual([
      { offset: 0, length: 1024 * TiB, kind: "unallocated" },
    ]);
    expect(storage.calls).toBe(0);
    await device.close();
  });

  it("a discard or a zeroing of 1 TiB that is not allocated touches no table", async () => {
    const memory = await imageInMemory({ size: 2 * TiB });
    const storage = new CountingStorage(memory);
    const device = await openQcow2(storage, {});
    await device.write(TiB + 5, new Uint8Array(10).fill(1));
    storage.calls = 0;
    await device.discard(0, TiB);
    await device.writeZeroes(0, TiB);
    expect(storage.calls).toBe(0);
    await device.close();
    expectSound(memory.bytes());
  });

  it("opening reads the header and L1 only", async () => {
    const storage = new CountingStorage(await imageInMemory({ size: 256 * GiB, preallocation: "metadata" }));
    const device = await openQcow2(storage, {});
    expect(storage.calls).toBe(2);
    await device.close();
  });

  it("a long walk over the mapping lets other work in between", async () => {
    const device = await openQcow2(await imageInMemory({ size: 256 * GiB, preallocation: "metadata" }), {});
    let turns = 0;
    let walking = true;
    const otherWork = (): void => {
      turns += 1;
      if (walking) setImmediate(otherWork);
    };
    setImmediate(otherWork);
    const extents = await collect(device.extents(0, device.size));
    walking = false;
    expect(extents.reduce((sum, extent) => sum + extent.length, 0)).toBe(256 * GiB);
    expect(turns).toBeGreaterThan(8);
    await device.close();
  });

  it("data at the far end of a disk above 2^42 bytes is found again", async () => {
    const memory = await imageInMemory({ size: 100 * TiB });
    const device = await openQcow2(memory, {});
    const text = new Uint8Array(5000).fill(9);
    const places = [0, 50 * TiB - 2500, 100 * TiB - 5000];
    for (const place of places) await device.write(place, text);
    for (const place of places) {
      const bytes = new Uint8Array(5000);
      await device.read(place, bytes);
      expect(bytes).toEqual(text);
    }
    await device.close();
  });
});

describe("refcount structures that grow", () => {
  /** One cluster of table reaches 2 MiB of file with 64-bit counts, 8 MiB with 16-bit counts. */
  const outgrown = [
    { refcountBits: 64, size: 6 * 1024 * KiB },
    { refcountBits: 16, size: 10 * 1024 * KiB },
  ];
  it.each(outgrown)(
    "a file that outgrows its refcount table stays sound: $refcountBits bits",
    async ({ refcountBits, size }) => {
      const memory = await imageInMemory({ size, clusterSize: 512, refcountBits });
      const device = await openQcow2(memory, {});
      const random = new Random(refcountBits);
      const live = new Uint8Array(size);
      for (let done = 0; done < size; done += 64 * KiB) {
        const bytes = new Uint8Array(64 * KiB).fill(1 + random.below(255));
        live.set(bytes, done);
        await device.write(done, bytes);
        if (random.chance(0.1)) await device.flush();
      }
      await device.close();
      const bytes = memory.bytes();
      expect(new DataView(bytes.buffer).getBigUint64(REFCOUNT_TABLE_OFFSET_AT)).toBeGreaterThan(512n);
      expectSound(bytes);
      const again = await openQcow2(memoryStorage(bytes), { readOnly: true });
      const actual = new Uint8Array(size);
      await again.read(0, actual);
      expect(Buffer.compare(actual, live)).toBe(0);
      await again.close();
    },
  );

  it("1-bit counts serve clusters that come and go", async () => {
    const engine = await openEngine(await imageInMemory({ size: 1024 * KiB, refcountBits: 1 }), {});
    const offset = await engine.allocateClusters(2);
    await engine.freeClusters(offset, 2);
    await engine.flush();
    expect(await engine.allocateClusters(2)).toBe(offset);
    await engine.freeClusters(offset, 2);
    await engine.close();
  });
});

describe("clusters for other structures", () => {
  it("are contiguous, counted once durable, and reused after they were freed and flushed", async () => {
    const memory = await imageInMemory({ size: 16 * 1024 * KiB });
    const engine = await openEngine(memory, {});
    await engine.write(0, new Uint8Array(64 * KiB).fill(1));
    const offset = await engine.allocateClusters(5);
    await engine.write(64 * KiB, new Uint8Array(64 * KiB).fill(2));
    await engine.freeClusters(offset, 5);
    expect(await engine.allocateClusters(5)).toBeGreaterThan(offset);
    await engine.flush();
    expect(await engine.allocateClusters(5)).toBe(offset);
    await engine.close();
  });
});
