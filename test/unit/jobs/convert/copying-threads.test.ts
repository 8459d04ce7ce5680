import * as fs from "node:fs";
import { expect, it } from "vitest";
import type { BlockExtent, DiskFiller, DiskPart } from "../../../../src/block/block-device.js";
import { createQcow2 } from "../../../../src/formats/qcow2/create.js";
import { openQcow2 } from "../../../../src/formats/qcow2/open.js";
import { openRaw } from "../../../../src/formats/raw/device.js";
import { convertDisks } from "../../../../src/jobs/convert/convert.js";
import { CopyingThreads } from "../../../../src/jobs/convert/copying-threads.js";
import { openFileStorage } from "../../../../src/storage/file-storage.js";
import { expectSound } from "../../../support/engine-images.js";
import { temporaryFolder } from "../../../support/temporary-folder.js";

const KIB = 1024;
const MIB = 1024 * KIB;
const path = temporaryFolder();

function extent(offset: number, length: number, hostOffset: number): BlockExtent {
  return { offset, length, kind: "data", hostOffset, compressed: false, depth: 0, zero: false };
}

/** Bytes without zeros, different everywhere. */
function pattern(length: number): Uint8Array {
  return new Uint8Array(length).map((_, at) => ((at * 31 + (at >> 9)) % 255) + 1);
}

/** Threads between two files; what they did and left. */
async function threadsOn(source: string, target: string, targetFlags: string, filler?: DiskFiller, unit = 1) {
  const descriptors = { source: fs.openSync(source, "r"), target: fs.openSync(target, targetFlags) };
  const copied: number[] = [];
  const left: DiskPart[] = [];
  const threads = new CopyingThreads(
    { ...descriptors, filler, unit },
    (length) => copied.push(length),
    async (part) => {
      left.push(part);
    },
  );
  const taken = async (run: BlockExtent): Promise<void> => {
    const end = run.offset + run.length;
    for (let at = run.offset; at < end; ) {
      at += await threads.take(run, at, end);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  };
  const finish = async (): Promise<void> => {
    await threads.settled();
    await threads.close();
    for (const descriptor of Object.values(descriptors)) fs.closeSync(descriptor);
  };
  return { threads, taken, finish, copied, left };
}

it("threads copy runs to their places and leave zeros out, in units of the disk", async () => {
  const bytes = pattern(6 * MIB);
  bytes.fill(0, MIB + 100, MIB + 100 + 64 * KIB);
  fs.writeFileSync(path("source"), bytes);
  fs.writeFileSync(path("target"), "");
  fs.truncateSync(path("target"), 8 * MIB);
  const { taken, finish, copied, left } = await threadsOn(path("source"), path("target"), "r+");
  await taken(extent(0, 5 * MIB, MIB));
  // The last bytes lie past the end of the source.
  await taken(extent(6 * MIB + 512, 1536, 6 * MIB - 1024));
  await finish();
  const expected = new Uint8Array(8 * MIB);
  expected.set(bytes.subarray(MIB));
  expected.set(bytes.subarray(6 * MIB - 1024), 6 * MIB + 512);
  expect(Buffer.compare(fs.readFileSync(path("target")), expected)).toBe(0);
  expect(copied.reduce((sum, length) => sum + length, 0)).toBe(5 * MIB + 1536);
  expect(left).toEqual([]);
  // 64 KiB of zeros that begin inside a unit have 15 whole ones.
  expect(fs.statSync(path("target")).blocks * 512).toBeLessThanOrEqual(5 * MIB - 15 * 4 * KIB + 8 * KIB);
});

it("what threads cannot write is left to the caller, part by part", async () => {
  fs.writeFileSync(path("source"), pattern(MIB));
  fs.writeFileSync(path("target"), new Uint8Array(MIB));
  const { taken, finish, copied, left } = await threadsOn(path("source"), path("target"), "r");
  await taken(extent(0, 64 * KIB, 0));
  await taken(extent(256 * KIB, 64 * KIB, 128 * KIB));
  await finish();
  expect(copied).toEqual([]);
  expect(left).toMatchObject([
    { offset: 0, length: 64 * KIB },
    { offset: 256 * KIB, length: 64 * KIB },
  ]);
});

it("threads do not take what is elsewhere or not stored as it is", async () => {
  fs.writeFileSync(path("source"), pattern(MIB));
  fs.writeFileSync(path("target"), new Uint8Array(MIB));
  const { threads, taken, finish } = await threadsOn(path("source"), path("target"), "r+");
  const run = extent(0, 64 * KIB, 0);
  await taken(run);
  for (const other of [{ hostOffset: undefined }, { file: "elsewhere" }, { depth: 1 }]) {
    expect(await threads.take({ ...run, ...other }, 0, 64 * KIB)).toBe(0);
  }
  await finish();
});

it("a long raw disk arrives whole, with its progress, whoever copies which part", async () => {
  const bytes = pattern(72 * MIB);
  bytes.fill(0, 40 * MIB, 44 * MIB + 100);
  fs.writeFileSync(path("source"), bytes);
  const source = openRaw(await openFileStorage(path("source")));
  const storage = await openFileStorage(path("target"), { writable: true, create: true, io: "pool" });
  await storage.truncate(bytes.length);
  const target = openRaw(storage);
  const progress: number[] = [];
  try {
    await convertDisks([source], target, { targetIsZero: true, onProgress: (done) => progress.push(done) });
  } finally {
    await source.close();
    await target.close();
  }
  expect(Buffer.compare(fs.readFileSync(path("target")), bytes)).toBe(0);
  expect(progress.at(-1)).toBe(bytes.length);
});

/** A copy of the raw file in a new image. */
async function filledImage(source: string, image: string, clusterSize: number): Promise<Uint8Array> {
  const from = openRaw(await openFileStorage(source));
  const storage = await openFileStorage(image, { writable: true, create: true, io: "pool" });
  await createQcow2(storage, { size: from.size, clusterSize });
  const target = await openQcow2(storage);
  try {
    await convertDisks([from], target, { targetIsZero: true });
  } finally {
    await from.close();
    await target.close();
  }
  return fs.readFileSync(image);
}

it.each([4 * KIB, 64 * KIB, 2 * MIB])(
  "images that threads fill are sound, and places of zeros are used again: clusters of %i bytes",
  async (clusterSize) => {
    const bytes = pattern(113 * MIB + 512);
    // Zeros that the file has as data: at the start of a batch, across two, inside a cluster, and many clusters.
    for (const [from, to] of [
      [56 * MIB, 57 * MIB],
      [63 * MIB + 100, 66 * MIB],
      [70 * MIB + 4096, 70 * MIB + 12_288],
      [72 * MIB, 90 * MIB],
    ] as const) {
      bytes.fill(0, from, to);
    }
    fs.writeFileSync(path("source"), bytes);
    const first = await filledImage(path("source"), path("first"), clusterSize);
    expectSound(first);
    if (clusterSize === 64 * KIB) {
      const second = await filledImage(path("source"), path("second"), clusterSize);
      expect(Buffer.compare(first, second), "the same copy gives the same file").toBe(0);
    }
    const image = await openQcow2(await openFileStorage(path("first")), { readOnly: true });
    const read = new Uint8Array(MIB);
    for (let at = 0; at < bytes.length; at += MIB) {
      const piece = read.subarray(0, Math.min(MIB, bytes.length - at));
      await image.read(at, piece);
      expect(Buffer.compare(piece, bytes.subarray(at, at + piece.length)), `at ${at}`).toBe(0);
    }
    await image.close();
    // What the last batches before the end had for zeros nobody has used.
    expect(first.length).toBeLessThan(106 * MIB + 6 * clusterSize);
  },
);

it("what finds no place, and what is no whole unit, is copied by the caller", async () => {
  fs.writeFileSync(path("source"), pattern(MIB));
  fs.writeFileSync(path("target"), "");
  const asked: number[] = [];
  const filler: DiskFiller = {
    fillParts: async (parts, store) => {
      asked.push(...parts.map(({ offset }) => offset));
      if (asked.length === 1) return (await store([])) === undefined;
      throw new Error("no room");
    },
  };
  const { threads, taken, finish, copied, left } = await threadsOn(path("source"), path("target"), "r+", filler, 4096);
  await taken(extent(1024, 8192, 0));
  await threads.settled();
  await taken(extent(16_384, 4096, 0));
  await finish();
  expect(copied).toEqual([]);
  expect(asked).toEqual([4096, 16_384]);
  expect(left).toEqual([
    { offset: 1024, length: 3072 },
    { offset: 8192, length: 1024 },
    { offset: 4096, length: 4096, host: 3072 },
    { offset: 16_384, length: 4096, host: 0 },
  ]);
});
