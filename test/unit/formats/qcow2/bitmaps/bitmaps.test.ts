import { describe, expect, test } from "vitest";
import {
  BITMAP_AUTO,
  BITMAP_IN_USE,
  type BitmapEntry,
  decodeDirectory,
  encodeDirectory,
} from "../../../../../src/formats/qcow2/bitmaps/bitmap-directory.js";
import { DirtyBits } from "../../../../../src/formats/qcow2/bitmaps/dirty-bits.js";
import { openQcow2 } from "../../../../../src/formats/qcow2/open.js";
import { changeBitmap, readBitmap } from "../../../../../src/jobs/bitmap.js";
import { describeImage } from "../../../../../src/jobs/info.js";
import { memoryStorage } from "../../../../../src/storage/memory-storage.js";
import { recordingStorage } from "../../../../../src/storage/recording-storage.js";
import { CRASH_KINDS, crashedFile } from "../../../../support/crash-images.js";
import { newImage } from "../../../../support/new-image.js";
import { Random, seedFromEnvironment } from "../../../../support/random.js";

const ENTRY: BitmapEntry = {
  tableOffset: 65_536,
  tableEntries: 1,
  flags: BITMAP_AUTO,
  granularityBits: 16,
  name: "backup-é",
  extra: new Uint8Array([1, 2, 3]),
};

describe("dirty bits", () => {
  test("give back exactly the granules that were touched, whatever the order of writes", () => {
    const first = seedFromEnvironment(1);
    for (let seed = first; seed < first + 40; seed++) {
      const random = new Random(seed);
      const granularity = 2 ** random.between(9, 12);
      const size = random.between(1, 200_000);
      const bits = new DirtyBits(size, granularity, random.pick([1, 2, 16]));
      const model = new Uint8Array(size);
      for (let write = 0; write < 12; write++) {
        const offset = random.below(size);
        const length = random.between(1, Math.min(20_000, size - offset));
        bits.mark(offset, length);
        const start = Math.floor(offset / granularity) * granularity;
        model.fill(1, start, Math.ceil((offset + length) / granularity) * granularity);
      }
      const found = new Uint8Array(size);
      let end = -1;
      for (const range of bits.ranges()) {
        expect(range.offset, `seed ${seed}: runs do not touch`).toBeGreaterThan(end);
        end = range.offset + range.length;
        found.fill(1, range.offset, end);
      }
      expect(end).toBeLessThanOrEqual(size);
      expect(Buffer.compare(found, model), `seed ${seed}`).toBe(0);
    }
  });

  test("grow as the disk does, with nothing marked in its new part", () => {
    const first = seedFromEnvironment(1);
    for (let seed = first; seed < first + 60; seed++) {
      const random = new Random(seed);
      const sizes = [random.between(1, 40_000), random.between(40_000, 80_000), random.between(80_000, 300_000)];
      const bits = new DirtyBits(sizes[0] as number, 512, random.pick([1, 2, 16]));
      for (const size of sizes.slice(1)) {
        for (let write = 0; write < 3; write++) bits.mark(random.below(bits.size), random.between(1, 9000));
        const copy = bits.resized(size);
        bits.grow(size);
        expect([...bits.ranges()], `seed ${seed}`).toEqual([...copy.ranges()]);
        expect([bits.size, bits.chunkCount, bits.changed]).toEqual([size, copy.chunkCount, true]);
      }
    }
  });

  test.each([["ones" as const], [Uint8Array.of(0xff, 0xff)]])(
    "do not grow into what a chunk holds behind the end",
    (chunk) => {
      const bits = new DirtyBits(10 * 512, 512, 2);
      bits.putChunk(0, chunk);
      bits.grow(40 * 512);
      expect([...bits.ranges()]).toEqual([{ offset: 0, length: 10 * 512 }]);
      bits.mark(12 * 512, 1);
      expect([...bits.ranges()]).toEqual([
        { offset: 0, length: 10 * 512 },
        { offset: 12 * 512, length: 512 },
      ]);
    },
  );

  test("are merged across granularities", () => {
    const fine = new DirtyBits(1 << 20, 512, 512);
    fine.mark(70_000, 1);
    const coarse = new DirtyBits(1 << 20, 65_536, 512);
    coarse.merge(fine);
    expect([...coarse.ranges()]).toEqual([{ offset: 65_536, length: 65_536 }]);
  });
});

describe("a bitmap directory", () => {
  test("is decoded to what was encoded, extra data included", () => {
    const entries = [ENTRY, { ...ENTRY, name: "x".repeat(1023), granularityBits: 31, extra: new Uint8Array(0) }];
    expect(decodeDirectory(encodeDirectory(entries), 2, 65_536)).toEqual(entries);
  });

  test("keeps names that are no UTF-8 as they are", () => {
    const directory = encodeDirectory([ENTRY]);
    const nameAt = 24 + ENTRY.extra.length;
    directory.set([0xff, 0xc3], nameAt);
    expect(encodeDirectory(decodeDirectory(directory, 1, 65_536))).toEqual(directory);
  });

  const spoilt: readonly (readonly [what: string, at: number, bytes: readonly number[], field: string])[] = [
    ["a table at offset 0", 0, [0, 0, 0, 0, 0, 0, 0, 0], "bitmap_table_offset"],
    ["a table between clusters", 7, [1], "bitmap_table_offset"],
    ["a table beyond all files", 0, [0xff], "bitmap_table_offset"],
    ["no table entries", 8, [0, 0, 0, 0], "bitmap_table_size"],
    ["four billion table entries", 8, [0xff, 0xff, 0xff, 0xff], "bitmap_table_size"],
    ["unknown flags", 12, [0x80], "flags"],
    ["an unknown type", 16, [2], "type"],
    ["granularity 2^8", 17, [8], "granularity_bits"],
    ["granularity 2^32", 17, [32], "granularity_bits"],
    ["no name", 18, [0, 0], "name_size"],
    ["extra data past the end", 20, [0xff, 0xff, 0xff, 0xff], "size"],
    ["a name past the end", 18, [0xff, 0xff], "size"],
  ];
  test.each(spoilt)("with %s is refused", (_what, at, bytes, field) => {
    const directory = encodeDirectory([ENTRY]);
    directory.set(bytes, at);
    expect(() => decodeDirectory(directory, 1, 65_536)).toThrow(
      expect.objectContaining({ code: "QCOW2_BITMAPS", data: expect.objectContaining({ field }) }),
    );
  });

  test("with one name twice, too few or too many bytes is refused", () => {
    const twice = encodeDirectory([ENTRY, ENTRY]);
    for (const [bytes, count] of [
      [twice, 2],
      [twice, 1],
      [twice, 3],
      [twice.subarray(0, 20), 1],
    ] as const) {
      expect(() => decodeDirectory(bytes, count, 65_536)).toThrow(expect.objectContaining({ code: "QCOW2_BITMAPS" }));
    }
  });
});

describe("bitmaps of an image", () => {
  const format = "qcow2";
  const withBitmap = async (): Promise<Uint8Array> => {
    const storage = memoryStorage(await newImage({ size: 1 << 20, clusterSize: 4096 }));
    await changeBitmap(storage, { format, name: "b", actions: [{ do: "add" }] });
    return storage.bytes();
  };

  test("record writes, zeros and discards, and nothing while they are disabled", async () => {
    const storage = memoryStorage(await withBitmap());
    const kept = memoryStorage(storage.bytes());
    const device = await openQcow2(kept);
    await device.write(5000, new Uint8Array(10));
    await device.writeZeroes(65_536, 8192);
    await device.discard(131_072, 4096);
    await device.close();
    const bits = await readBitmap(memoryStorage(kept.bytes()), { format, name: "b" });
    expect([...bits.ranges()]).toEqual([
      { offset: 4096, length: 4096 },
      { offset: 65_536, length: 8192 },
      { offset: 131_072, length: 4096 },
    ]);
    const next = memoryStorage(kept.bytes());
    await changeBitmap(next, { format, name: "b", actions: [{ do: "clear" }, { do: "disable" }] });
    const last = next.clone();
    const other = await openQcow2(last);
    await other.write(0, new Uint8Array(512));
    await other.close();
    expect([...(await readBitmap(memoryStorage(last.bytes()), { format, name: "b" })).ranges()]).toEqual([]);
  });

  test("are consistent and complete after a power cut, or marked in use", async () => {
    const image = await withBitmap();
    const random = new Random(seedFromEnvironment(1));
    const memory = memoryStorage(image);
    const recorder = recordingStorage(memory, memory);
    const device = await openQcow2(recorder);
    for (let write = 0; write < 12; write++) {
      await device.write(random.below(250) * 4096, new Uint8Array(4096).fill(write + 1));
      if (write % 4 === 3) await device.flush();
    }
    await device.close();
    const calls = { initial: image, changes: recorder.changes, flushes: recorder.flushes };
    let consistent = 0;
    for (let moment = 0; moment <= recorder.moment(); moment++) {
      for (const kind of CRASH_KINDS) {
        const crashed = memoryStorage(crashedFile(calls, moment, kind, random));
        const [info] = (await describeImage(crashed.clone(), { format })).qcow2?.bitmaps ?? [];
        if (info === undefined) throw new Error(`the bitmap is gone at ${moment}, ${kind}`);
        if (info.inUse) continue;
        consistent += 1;
        const bits = await readBitmap(crashed.clone(), { format, name: "b" });
        const dirty = new Uint8Array(256);
        for (const { offset, length } of bits.ranges()) dirty.fill(1, offset / 4096, (offset + length) / 4096);
        const reader = await openQcow2(crashed.clone(), { readOnly: true });
        for (let cluster = 0; cluster < 256; cluster++) {
          const bytes = new Uint8Array(4096);
          await reader.read(cluster * 4096, bytes);
          if (bytes[0] !== 0) expect(dirty[cluster], `cluster ${cluster} at ${moment}, ${kind}`).toBe(1);
        }
        await reader.close();
      }
    }
    expect(consistent).toBeGreaterThan(0);
  });

  test("left in use can be removed, and nothing else", async () => {
    const storage = memoryStorage(await withBitmap());
    const bytes = storage.bytes();
    const directory = bytes.findIndex(
      (_, at) => at % 4096 === 0 && at > 0 && bytes[at + 17] === 12 && bytes[at + 24] === 0x62,
    );
    bytes[directory + 15] = BITMAP_AUTO | BITMAP_IN_USE;
    const change = (action: "clear" | "enable" | "remove"): Promise<void> =>
      changeBitmap(stored, { format, name: "b", actions: [{ do: action }] });
    const stored = memoryStorage(bytes);
    await expect(change("clear")).rejects.toMatchObject({ code: "BITMAP_INCONSISTENT" });
    await expect(change("enable")).rejects.toMatchObject({ code: "BITMAP_INCONSISTENT" });
    await change("remove");
    expect((await describeImage(stored, { format })).qcow2?.bitmaps).toBeUndefined();
  });
});
