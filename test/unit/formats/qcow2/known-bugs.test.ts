import { describe, expect, test } from "vitest";
import { MiB } from "../../../../src/base/units.js";
import { checkQcow2 } from "../../../../src/formats/qcow2/check/check.js";
import { createQcow2 } from "../../../../src/formats/qcow2/create.js";
import { openQcow2 } from "../../../../src/formats/qcow2/open.js";
import { describeImage } from "../../../../src/jobs/info.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { all, type Change, fields, plainImage, put32, put64, putExtensions, text } from "../../../corpus/images.js";

/** Bugs that other programs for qcow2 had. Each lost somebody's data or shut somebody out of a good image. */

const CLUSTER = 65_536;
const COPIED = 1n << 63n;
/** Where clusters lie in the written image: the L2 table in cluster 4, the data of guest clusters 0 and 1 in 5 and 6. */
const L2_TABLE = 4 * CLUSTER;
const FIRST_DATA = 5 * CLUSTER;
const V2_EXTENSIONS_AT = 72;
const BACKING_FORMAT = 0xe279_2aca;
const UNKNOWN = 0x1234_5678;

const filled = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);

async function writtenImage(): Promise<Uint8Array> {
  const storage = memoryStorage(await plainImage());
  const disk = await openQcow2(storage);
  await disk.write(0, filled(2 * CLUSTER, 7));
  await disk.close();
  return storage.bytes();
}

function changed(bytes: Uint8Array, change: Change): Uint8Array {
  return change(bytes) ?? bytes;
}

async function readOf(image: Uint8Array, offset: number, length: number): Promise<Set<number>> {
  const disk = await openQcow2(memoryStorage(image), { readOnly: true });
  const bytes = filled(length, 0xee);
  await disk.read(offset, bytes);
  await disk.close();
  return new Set(bytes);
}

describe("what is not allocated", () => {
  test("reads as zeros, not as the start of the file", async () => {
    const image = await writtenImage();
    // A hole in a table, and a hole in L1.
    expect(await readOf(image, 2 * CLUSTER, CLUSTER)).toEqual(new Set([0]));
    expect(await readOf(await plainImage({ size: MiB }), 0, MiB)).toEqual(new Set([0]));
  });

  test("an image of zero clusters only reads as zeros to its end", async () => {
    const storage = memoryStorage(await plainImage({ size: 2 * MiB }));
    const disk = await openQcow2(storage);
    await disk.write(0, filled(2 * MiB, 1));
    await disk.writeZeroes(0, 2 * MiB);
    await disk.close();
    expect(await readOf(storage.bytes(), 0, 2 * MiB)).toEqual(new Set([0]));
  });
});

describe("entries of tables", () => {
  test("a zero flag over an allocated cluster reads as zeros, and the cluster is written in place", async () => {
    const image = changed(await writtenImage(), put64(L2_TABLE, COPIED | BigInt(FIRST_DATA) | 1n));
    expect(await readOf(image, 0, CLUSTER)).toEqual(new Set([0]));
    const storage = memoryStorage(image);
    const disk = await openQcow2(storage);
    await disk.write(512, filled(512, 9));
    await disk.close();
    const bytes = storage.bytes();
    expect(new Set(bytes.subarray(FIRST_DATA + 512, FIRST_DATA + 1024))).toEqual(new Set([9]));
    expect(await readOf(bytes, 0, 512)).toEqual(new Set([0]));
    expect(await checkQcow2(memoryStorage(bytes))).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  test.each([48n, 49n, 50n, 52n])("bit %i of an offset counts: the cluster is another one", async (bit) => {
    const image = changed(await writtenImage(), put64(L2_TABLE, COPIED | (1n << bit) | BigInt(FIRST_DATA)));
    expect(await readOf(image, 0, CLUSTER)).toEqual(new Set([0]));
  });

  test("a compressed cluster is decompressed, not read as data", async () => {
    const image = changed(await writtenImage(), put64(L2_TABLE, (1n << 62n) | BigInt(FIRST_DATA)));
    const disk = await openQcow2(memoryStorage(image), { readOnly: true });
    await expect(async () => disk.read(0, filled(512, 0))).rejects.toMatchObject({
      code: "COMPRESSED_DATA",
    });
  });

  test.each([2 ** 29, 2 ** 30, 2 ** 32 - 1])("%i L1 entries do not wrap to a small table", async (entries) => {
    const image = changed(await plainImage(), put32(36, entries));
    await expect(openQcow2(memoryStorage(image))).rejects.toMatchObject({ code: "QCOW2_L1_TOO_LARGE" });
  });
});

describe("a version 2 image", () => {
  const v2 = async (change: Change): Promise<Uint8Array> => changed(await plainImage({ compat: "0.10" }), change);

  test("has its extensions at byte 72, the backing format among them", async () => {
    const name = "base.raw";
    const image = await v2(
      all(
        putExtensions([[BACKING_FORMAT, text("raw")]], V2_EXTENSIONS_AT),
        put64(8, 96),
        put32(16, name.length),
        (bytes) => bytes.set(text(name), 96),
      ),
    );
    const info = await describeImage(memoryStorage(image), { format: "qcow2" });
    expect(info).toMatchObject({ backingFile: "base.raw", backingFormat: "raw" });
  });

  test("has no feature words and no header length: an extension lies there, and is kept", async () => {
    // Every word of version 3 would be nonsense here.
    const data = fields(0xffff_ffff, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff, 0xffff_ffff);
    const storage = memoryStorage(await v2(putExtensions([[UNKNOWN, data]], V2_EXTENSIONS_AT)));
    const before = storage.bytes().slice(0, 512);
    const disk = await openQcow2(storage);
    await disk.write(0, filled(CLUSTER, 3));
    await disk.close();
    expect(storage.bytes().slice(0, 512)).toEqual(before);
    expect(await readOf(storage.bytes(), 0, CLUSTER)).toEqual(new Set([3]));
  });
});

describe("an overlay", () => {
  test("records the format of its backing file under the number that every other program reads", async () => {
    const storage = memoryStorage();
    await createQcow2(storage, { size: MiB, backingFile: "base.raw", backingFormat: "raw" });
    const bytes = storage.bytes();
    const view = new DataView(bytes.buffer);
    expect(view.getUint32(view.getUint32(100))).toBe(BACKING_FORMAT);
    expect(await describeImage(storage, { format: "qcow2" })).toMatchObject({
      backingFile: "base.raw",
      backingFormat: "raw",
    });
  });
});

describe("a header", () => {
  test.each([22, 32, 63, 64, 0xffff_ffff])(
    "with cluster_bits %i is refused before anything is shifted by it",
    async (bits) => {
      const image = changed(await plainImage(), put32(20, bits));
      await expect(openQcow2(memoryStorage(image))).rejects.toMatchObject({ code: "QCOW2_CLUSTER_SIZE" });
    },
  );

  test.each([
    ["with unknown compatible bits", put64(80, (1n << 63n) | (1n << 17n))],
    ["with unknown autoclear bits", put64(88, 1n << 40n)],
    ["of 104 bytes", all(put32(100, 104), putExtensions([], 104))],
    ["of 120 bytes", all(put32(100, 120), putExtensions([], 120))],
  ] as const)("%s is a good one", async (_name, change) => {
    const disk = await openQcow2(memoryStorage(changed(await plainImage(), change)), { readOnly: true });
    expect(disk.size).toBe(64 * MiB);
    await disk.close();
  });
});

describe("flags that the user chose", () => {
  test("lazy refcounts stay on when the image is opened, written and closed", async () => {
    const storage = memoryStorage(await plainImage({ lazyRefcounts: true }));
    const disk = await openQcow2(storage);
    await disk.write(0, filled(CLUSTER, 1));
    await disk.close();
    const info = await describeImage(memoryStorage(storage.bytes()), { format: "qcow2" });
    expect([info.qcow2?.lazyRefcounts, info.dirty]).toEqual([true, false]);
  });

  test("unknown compatible bits, unknown header bytes and unknown extensions survive writing", async () => {
    const tail = fields(0xdead_beef, 0xcafe_f00d);
    const storage = memoryStorage(
      changed(
        await plainImage(),
        all(
          put64(80, 1n << 40n),
          put64(88, 1n << 50n),
          put32(100, 120),
          put64(112, 0x1122_3344_5566_7788n),
          putExtensions([[UNKNOWN, tail]], 120),
        ),
      ),
    );
    const disk = await openQcow2(storage);
    await disk.write(0, filled(512, 1));
    await disk.close();
    const view = new DataView(storage.bytes().buffer);
    expect([view.getBigUint64(80), view.getBigUint64(88), view.getUint32(100), view.getBigUint64(112)]).toEqual([
      1n << 40n,
      0n,
      120,
      0x1122_3344_5566_7788n,
    ]);
    expect([view.getUint32(120), view.getUint32(124), view.getUint32(128), view.getUint32(132)]).toEqual([
      UNKNOWN,
      8,
      0xdead_beef,
      0xcafe_f00d,
    ]);
  });
});

describe("an image that needs what is not there", () => {
  test.each([
    ["encrypted, without a passphrase", put32(32, 1), "PASSPHRASE_REQUIRED"],
    ["with the incompatible bit 63", put64(72, 1n << 63n), "QCOW2_UNKNOWN_FEATURE"],
    [
      "with an external data file that is not there",
      all(put64(72, 4n), putExtensions([[0x4441_5441, text("/nowhere/data.raw")]])),
      "NOT_FOUND",
    ],
    ["with the bitmaps bit and no bitmaps", put64(88, 1n), "QCOW2_BITMAPS"],
  ] as const)("%s does not open, and is not changed", async (_name, change, code) => {
    const image = changed(await plainImage(), change);
    const storage = memoryStorage(image.slice());
    await expect(openQcow2(storage, { implicitFiles: "allow" })).rejects.toMatchObject({ code });
    expect(storage.bytes()).toEqual(image);
  });
});
