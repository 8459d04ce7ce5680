import { closeSync, copyFileSync, openSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { KiB, MiB } from "../../../../src/base/units.js";
import { clusterDecompressor } from "../../../../src/formats/qcow2/decompressing-threads.js";
import { nativeZstd } from "../../../../src/host/zstd-native.js";
import { createImage, openImage } from "../../../../src/index.js";
import { temporaryDirectory } from "../../../support/stock-tools.js";

const threads = vi.hoisted(() => ({ asked: 0, broken: false }));

vi.mock("../../../../src/host/side-thread.js", async (original) => {
  const { SideThread } = await original<{
    SideThread: new (make: unknown) => { ask(request: unknown): Promise<unknown> };
  }>();
  class Watched extends SideThread {
    override ask(request: unknown): Promise<unknown> {
      threads.asked += 1;
      return threads.broken ? Promise.reject(new Error("no thread")) : super.ask(request);
    }
  }
  return { SideThread: Watched };
});

const CLUSTER = 64 * KiB;
const SIZE = 32 * MiB;
const PIECE = MiB;
const DAMAGED = 100_000;
const folder = temporaryDirectory();
/** zstd goes to threads only where the library of the system is there. */
const METHODS = nativeZstd(3) === undefined ? (["zlib"] as const) : (["zlib", "zstd"] as const);
const path = join(folder, "image.qcow2");

/** Shrinks to three quarters. */
const NOISE = noise();

function noise(): Uint8Array {
  let state = 1;
  const bytes = new Uint8Array(2 * PIECE);
  for (let at = 0; at < bytes.length; at++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    bytes[at] = 1 + (state >>> 26);
  }
  return bytes;
}

/** Other bytes in each cluster. */
function contents(at: number, length: number): Uint8Array {
  return NOISE.subarray(at / PIECE, at / PIECE + length);
}

beforeAll(async () => {
  for (const compressionType of METHODS) {
    const file = join(folder, compressionType);
    await createImage(file, { format: "qcow2", size: SIZE, compressionType });
    await using image = await openImage(file, { format: "qcow2", readOnly: false });
    for (let at = 0; at < SIZE; at += PIECE) await image.writeCompressed(at, contents(at, PIECE));
  }
});

beforeEach(() => {
  threads.asked = 0;
  threads.broken = false;
});

async function readAll(): Promise<number> {
  await using image = await openImage(path, { format: "qcow2", readOnly: true });
  const pieces = Array.from({ length: SIZE / PIECE }, (_, index) => index * PIECE);
  let equal = 0;
  for (let first = 0; first < pieces.length; first += 4) {
    await Promise.all(
      pieces.slice(first, first + 4).map(async (at) => {
        const into = new Uint8Array(PIECE);
        await image.read(at, into);
        if (Buffer.compare(into, contents(at, PIECE)) === 0) equal += PIECE;
      }),
    );
  }
  return equal;
}

/** Overwrites more than a cluster in the middle of the file with 0xff: zstd notices a broken frame, not broken bytes in one. */
function damage(): void {
  const fd = openSync(path, "r+");
  writeSync(fd, new Uint8Array(DAMAGED).fill(255), 0, DAMAGED, Math.floor(readFileSync(path).length / 4) * 3);
  closeSync(fd);
}

describe.each(METHODS)("an image with %s whose compressed clusters are read as a whole", (method) => {
  beforeEach(() => copyFileSync(join(folder, method), path));

  it.each([false, true])("is read right by threads (which fail: %s)", async (broken) => {
    threads.broken = broken;
    expect(await readAll()).toBe(SIZE);
    expect(threads.asked).toBeGreaterThan(10);
  });

  it("tells what is wrong with damaged data as it does without threads", async () => {
    damage();
    await expect(readAll()).rejects.toMatchObject({
      code: "COMPRESSED_DATA",
      message: expect.stringMatching(/compressed cluster at guest offset \d+.*cannot be decompressed/) as string,
    });
    expect(threads.asked).toBeGreaterThan(0);
  });

  it("is read without threads as long as little is read", async () => {
    await using image = await openImage(path, { format: "qcow2", readOnly: true });
    for (let at = 0; at < 8 * MiB; at += CLUSTER) await image.read(at, new Uint8Array(CLUSTER));
    for (let at = 8 * MiB; at < SIZE; at += CLUSTER) await image.read(at, new Uint8Array(4096));
    expect(threads.asked).toBe(0);
  });
});

describe("what such a thread does", () => {
  it("decompresses what it can, and says what it cannot", () => {
    const file = join(folder, "data");
    const fd = openSync(file, "w+");
    const bytes = [contents(0, CLUSTER), contents(0, CLUSTER - 1), contents(0, CLUSTER + 1), contents(7, CLUSTER)];
    const packed = bytes.map((part) => deflateRawSync(part, { windowBits: 12 }));
    const places = packed.flatMap((part, index) => {
      writeSync(fd, part, 0, part.length, index * CLUSTER);
      return [index * CLUSTER, index === 3 ? part.length + 500 : part.length];
    });
    const memory = new SharedArrayBuffer(6 * CLUSTER);
    const request = {
      descriptor: fd,
      method: "deflate" as const,
      program: import.meta.filename,
      clusterSize: CLUSTER,
      places: [...places, 9 * CLUSTER, 100, 0, 20],
      memory,
    };
    expect(clusterDecompressor()(request)).toEqual([1, 2, 4, 5]);
    expect(Buffer.compare(new Uint8Array(memory, 0, CLUSTER), contents(0, CLUSTER))).toBe(0);
    expect(Buffer.compare(new Uint8Array(memory, 3 * CLUSTER, CLUSTER), contents(7, CLUSTER))).toBe(0);
    closeSync(fd);
  });
});
