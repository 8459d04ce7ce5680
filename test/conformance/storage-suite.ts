import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { KiB, MiB } from "../../src/base/units.js";
import type { Storage, StorageExtent } from "../../src/storage/storage.js";
import { expectSameBytes } from "../support/disk-bytes.js";

/** A storage to be tested and how to get rid of what lies under it. */
export interface StorageFixture {
  readonly storage: Storage;
  readonly cleanUp?: () => Promise<void>;
}

/** Makes a writable storage that holds exactly `initial`. */
export type StorageFactory = (initial: Uint8Array) => Promise<StorageFixture>;

function pattern(length: number, seed = 1): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => 1 + ((index * 7 + seed * 31) % 255));
}

async function bytesOf(storage: Storage, at: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length).fill(0xee);
  await storage.read(at, bytes);
  return bytes;
}

/** Without the places in the file, which are of no concern to whoever reads. */
async function extentsOf(storage: Storage, at: number, length: number): Promise<StorageExtent[]> {
  const runs: StorageExtent[] = [];
  for await (const { offset, length: bytes, hole } of storage.extents(at, length)) {
    runs.push({ offset, length: bytes, hole });
  }
  return runs;
}

const zeros = (length: number): Uint8Array => new Uint8Array(length);

/** The promises of the storage contract, for any implementation that keeps what is written. */
export function describeStorageContract(name: string, make: StorageFactory): void {
  describe(`${name} keeps the storage contract`, () => {
    const initial = pattern(200 * KiB + 123);
    let fixture: StorageFixture;
    let storage: Storage;

    beforeEach(async () => {
      fixture = await make(initial);
      storage = fixture.storage;
    });

    afterEach(async () => {
      await storage.close();
      await fixture.cleanUp?.();
    });

    describe("reading", () => {
      it("has the size and bytes it was made with", async () => {
        expect(storage.size()).toBe(initial.length);
        expectSameBytes(await bytesOf(storage, 0, initial.length), initial);
      });

      it.each([
        [0, 1],
        [1, 511],
        [4095, 2],
        [65535, 65537],
        [100_000, 4096],
      ])("gives the bytes at %d, %d of them", async (at, length) => {
        expectSameBytes(await bytesOf(storage, at, length), initial.slice(at, at + length));
      });

      it("gives zeros past the end", async () => {
        const end = initial.length;
        expectSameBytes(await bytesOf(storage, end - 10, 30), Uint8Array.of(...initial.slice(-10), ...zeros(20)));
        expectSameBytes(await bytesOf(storage, end, 16), zeros(16));
        expectSameBytes(await bytesOf(storage, end + 10 * MiB, 16), zeros(16));
        expect(storage.size()).toBe(end);
      });

      it("fills only the view it was given", async () => {
        const buffer = new Uint8Array(64).fill(0xaa);
        await storage.read(5, buffer.subarray(8, 16));
        expectSameBytes(
          buffer,
          Uint8Array.of(...new Uint8Array(8).fill(0xaa), ...initial.slice(5, 13), ...new Uint8Array(48).fill(0xaa)),
        );
      });

      it("takes an empty view", async () => {
        await storage.read(0, new Uint8Array());
        await storage.read(initial.length + 5, new Uint8Array());
      });

      it("serves many reads at once", async () => {
        const offsets = Array.from({ length: 100 }, (_, index) => index * 1000);
        const found = await Promise.all(offsets.map((at) => bytesOf(storage, at, 700)));
        for (const [index, bytes] of found.entries())
          expectSameBytes(bytes, initial.slice(index * 1000, index * 1000 + 700));
      });

      it("alternates between buffers without mixing them up", async () => {
        const [a, b] = [new Uint8Array(4096), new Uint8Array(4096)];
        for (let round = 0; round < 20; round++) {
          await storage.read(round * 4096, a);
          await storage.read(round * 2000, b);
          expectSameBytes(a, initial.slice(round * 4096, round * 4096 + 4096));
          expectSameBytes(b, initial.slice(round * 2000, round * 2000 + 4096));
        }
      });
    });

    describe("writing", () => {
      it.each([
        [0, 1],
        [511, 2],
        [4096, 4096],
        [65_000, 70_000],
      ])("keeps what was written at %d, %d bytes, and leaves the rest", async (at, length) => {
        const written = pattern(length, 9);
        await storage.write(at, written);
        const expected = initial.slice();
        expected.set(written, at);
        expectSameBytes(await bytesOf(storage, 0, initial.length), expected);
        expect(storage.size()).toBe(initial.length);
      });

      it("writes only the view it was given, and does not hold on to it", async () => {
        const buffer = pattern(64, 3);
        const expected = buffer.slice(10, 20);
        await storage.write(100, buffer.subarray(10, 20));
        buffer.fill(0);
        expectSameBytes(await bytesOf(storage, 100, 10), expected);
        expectSameBytes(await bytesOf(storage, 110, 10), initial.slice(110, 120));
      });

      it("does nothing for an empty write, even past the end", async () => {
        await storage.write(0, new Uint8Array());
        await storage.write(initial.length + 100, new Uint8Array());
        expect(storage.size()).toBe(initial.length);
      });

      it("keeps many writes that were under way at once", async () => {
        const pieces = Array.from({ length: 50 }, (_, index) => ({ at: index * 4000, bytes: pattern(3000, index) }));
        await Promise.all(pieces.map(async ({ at, bytes }) => storage.write(at, bytes)));
        for (const { at, bytes } of pieces) expectSameBytes(await bytesOf(storage, at, bytes.length), bytes);
      });

      it("keeps what was written when it is flushed", async () => {
        await storage.write(7, pattern(100, 5));
        await storage.flush();
        expectSameBytes(await bytesOf(storage, 7, 100), pattern(100, 5));
      });
    });

    describe("zeros and discards", () => {
      it.each([
        [0, 100, false],
        [100, 65_536, false],
        [4096, 131_072, true],
        [65_536, 65_536, true],
        [1, 1, true],
      ])("reads zeros where zeros were written: %d, %d bytes, unmap %s", async (at, length, unmap) => {
        await storage.writeZeroes(at, length, { unmap });
        const expected = initial.slice();
        expected.fill(0, at, at + length);
        expectSameBytes(await bytesOf(storage, 0, initial.length), expected);
        expect(storage.size()).toBe(initial.length);
      });

      it("can be written again after zeros", async () => {
        await storage.writeZeroes(0, 131_072, { unmap: true });
        await storage.write(70_000, pattern(10, 2));
        expectSameBytes(await bytesOf(storage, 69_999, 12), Uint8Array.of(0, ...pattern(10, 2), 0));
      });

      it("makes nothing of zero length", async () => {
        await storage.writeZeroes(initial.length + 50, 0);
        await storage.discard(0, 0);
        expect(storage.size()).toBe(initial.length);
        expectSameBytes(await bytesOf(storage, 0, 10), initial.slice(0, 10));
      });

      it("reads zeros or the old bytes after a discard, and keeps its neighbours and its size", async () => {
        await storage.discard(65_536, 65_536);
        const found = await bytesOf(storage, 65_536, 65_536);
        for (const [index, byte] of found.entries()) {
          if (byte !== 0 && byte !== initial[65_536 + index]) throw new Error(`byte ${index} is ${byte}`);
        }
        expectSameBytes(await bytesOf(storage, 0, 65_536), initial.slice(0, 65_536));
        expectSameBytes(await bytesOf(storage, 131_072, 1000), initial.slice(131_072, 132_072));
        expect(storage.size()).toBe(initial.length);
      });

      it("does not grow by a discard past the end", async () => {
        await storage.discard(initial.length - 10, 10 * MiB);
        expect(storage.size()).toBe(initial.length);
      });

      it("gives space back when it says that it can", async () => {
        const before = storage.allocatedSize();
        if (!storage.capabilities.discard || before === undefined) return;
        await storage.discard(0, 131_072);
        expect(storage.allocatedSize()).toBeLessThanOrEqual(before - 131_072 + 16 * KiB);
      });
    });

    describe("changing the size", () => {
      it("grows by writing past the end, with zeros between", async () => {
        if (!storage.capabilities.resizable) return;
        const end = initial.length;
        await storage.write(end + 1000, pattern(10, 4));
        expect(storage.size()).toBe(end + 1010);
        expectSameBytes(
          await bytesOf(storage, end - 1, 1011),
          Uint8Array.of(...initial.slice(-1), ...zeros(1000), ...pattern(10, 4)),
        );
      });

      it("grows by zeros past the end", async () => {
        if (!storage.capabilities.resizable) return;
        await storage.writeZeroes(initial.length - 5, 1000);
        expect(storage.size()).toBe(initial.length + 995);
        expectSameBytes(
          await bytesOf(storage, initial.length - 6, 1001),
          Uint8Array.of(...initial.slice(-6, -5), ...zeros(1000)),
        );
        await storage.writeZeroes(storage.size() + 100, 50, { unmap: true });
        expect(storage.size()).toBe(initial.length + 995 + 150);
      });

      it("truncates, and shows zeros where it grows again", async () => {
        if (!storage.capabilities.resizable) return;
        await storage.truncate(1000);
        expect(storage.size()).toBe(1000);
        await storage.truncate(5000);
        expect(storage.size()).toBe(5000);
        expectSameBytes(await bytesOf(storage, 0, 5000), Uint8Array.of(...initial.slice(0, 1000), ...zeros(4000)));
        await storage.truncate(0);
        expect(storage.size()).toBe(0);
        expectSameBytes(await bytesOf(storage, 0, 10), zeros(10));
      });

      it("refuses to change its size when it says that it cannot", async () => {
        if (storage.capabilities.resizable) return;
        await expect(async () => storage.truncate(5)).rejects.toMatchObject({ category: "storage" });
        await expect(async () => storage.write(initial.length - 1, zeros(2))).rejects.toMatchObject({
          category: "storage",
        });
        expect(storage.size()).toBe(initial.length);
      });

      it("grows far without taking space", async () => {
        if (!storage.capabilities.resizable || !storage.capabilities.holes) return;
        const far = 4 * 1024 * 1024 * MiB;
        await storage.truncate(far);
        await storage.write(far - 10, pattern(10, 8));
        expect(storage.size()).toBe(far);
        expectSameBytes(await bytesOf(storage, far - 11, 11), Uint8Array.of(0, ...pattern(10, 8)));
        const allocated = storage.allocatedSize();
        if (allocated !== undefined) expect(allocated).toBeLessThan(MiB);
      });
    });

    describe("extents", () => {
      it.each([
        [0, 200 * KiB + 123],
        [1, 7],
        [100_000, 500_000],
        [10 * MiB, 4096],
      ])("cover exactly what was asked, from %d for %d bytes", async (at, length) => {
        await storage.writeZeroes(65_536, 65_536, { unmap: true });
        const runs = await extentsOf(storage, at, length);
        let position = at;
        for (const run of runs) {
          expect(run.offset).toBe(position);
          expect(run.length).toBeGreaterThan(0);
          position += run.length;
        }
        expect(position).toBe(at + length);
      });

      it("are none for no bytes", async () => {
        expect(await extentsOf(storage, 100, 0)).toEqual([]);
      });

      it("call a hole only what reads as zeros", async () => {
        await storage.writeZeroes(65_536, 65_536, { unmap: true });
        for (const run of await extentsOf(storage, 0, 400_000)) {
          if (run.hole) expectSameBytes(await bytesOf(storage, run.offset, run.length), zeros(run.length));
        }
      });

      it("show what lies past the end as a hole", async () => {
        const last = (await extentsOf(storage, 0, MiB)).at(-1);
        expect(last).toEqual({ offset: initial.length, length: MiB - initial.length, hole: true });
      });

      it("show a hole where space was given back, when it says that it knows holes", async () => {
        if (!storage.capabilities.holes || !storage.capabilities.discard) return;
        await storage.writeZeroes(65_536, 65_536, { unmap: true });
        expect(await extentsOf(storage, 0, 196_608)).toEqual([
          { offset: 0, length: 65_536, hole: false },
          { offset: 65_536, length: 65_536, hole: true },
          { offset: 131_072, length: 65_536, hole: false },
        ]);
      });
    });

    describe("capabilities", () => {
      it("are frozen", () => {
        expect(Object.isFrozen(storage.capabilities)).toBe(true);
        expect(storage.capabilities.writable).toBe(true);
        expect(storage.capabilities.alignment).toBeGreaterThanOrEqual(1);
      });

      it("complete writes and cached reads at once when they say so", () => {
        if (!storage.capabilities.synchronous) return;
        expect(storage.write(0, pattern(4096))).toBeUndefined();
        expect(storage.read(0, new Uint8Array(4096))).toBeUndefined();
      });
    });

    describe("refusals", () => {
      it.each([
        ["a negative offset", -1, 1],
        ["a fraction", 0.5, 1],
        ["not a number", Number.NaN, 1],
        ["an offset above 2^53-1", 2 ** 53, 1],
        ["an end above 2^53-1", 2 ** 53 - 2, 4],
      ])("refuses %s", async (_, at, length) => {
        const refused = { code: "INVALID_ARGUMENT" };
        await expect(async () => storage.read(at, new Uint8Array(length))).rejects.toMatchObject(refused);
        await expect(async () => storage.discard(at, length)).rejects.toMatchObject(refused);
        if (!storage.capabilities.resizable) return;
        await expect(async () => storage.write(at, new Uint8Array(length))).rejects.toMatchObject(refused);
        await expect(async () => storage.writeZeroes(at, length)).rejects.toMatchObject(refused);
      });

      it("refuses every call after close, which may be called again", async () => {
        await storage.close();
        await storage.close();
        const closed = { code: "CLOSED" };
        await expect(async () => storage.read(0, new Uint8Array(1))).rejects.toMatchObject(closed);
        await expect(async () => storage.write(0, new Uint8Array(1))).rejects.toMatchObject(closed);
        await expect(async () => storage.writeZeroes(0, 1)).rejects.toMatchObject(closed);
        await expect(async () => storage.discard(0, 1)).rejects.toMatchObject(closed);
        await expect(async () => storage.flush()).rejects.toMatchObject(closed);
        await expect(() => extentsOf(storage, 0, 1)).rejects.toMatchObject(closed);
        if (storage.capabilities.resizable) await expect(async () => storage.truncate(1)).rejects.toMatchObject(closed);
      });

      it("fails by rejecting, never by throwing", async () => {
        await storage.close();
        await expect(storage.read(0, new Uint8Array(1))).rejects.toThrow("closed");
        await expect(storage.write(0, new Uint8Array(1))).rejects.toThrow("closed");
      });

      it("finishes calls that were under way when it is closed", async () => {
        const bytes = new Uint8Array(150_000);
        const read = storage.read(100, bytes);
        const write = storage.write(0, pattern(50));
        const flush = storage.flush();
        await storage.close();
        await Promise.all([read, write, flush]);
        expectSameBytes(bytes.slice(1000), initial.slice(1100, 150_100));
      });
    });
  });
}
