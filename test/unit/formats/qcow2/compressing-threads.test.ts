import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { KiB, MiB } from "../../../../src/base/units.js";
import { clusterCompressor, compressingThreads } from "../../../../src/formats/qcow2/compressing-threads.js";
import { hostZstd } from "../../../../src/host/zstd-library.js";
import { createImage, openImage } from "../../../../src/index.js";
import { expectCleanCheck, temporaryDirectory } from "../../../support/stock-tools.js";

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
const SIZE = 16 * MiB;
const zstd = hostZstd();

/** Text, but for every fourth cluster, which is random, and every eighth one, which is zeros. */
const CONTENTS = contents();

function contents(): Uint8Array {
  const bytes = new Uint8Array(SIZE);
  for (let index = 0; index * CLUSTER < SIZE; index++) {
    const cluster = bytes.subarray(index * CLUSTER, (index + 1) * CLUSTER);
    if (index % 8 === 7) continue;
    if (index % 4 === 3) cluster.set(randomBytes(CLUSTER));
    else
      cluster.set(
        Buffer.from(`cluster ${index} holds the words of line ${index * 7} `.repeat(2000)).subarray(0, CLUSTER),
      );
  }
  return bytes;
}

beforeEach(() => {
  threads.asked = 0;
  threads.broken = false;
});

async function written(method: "zlib" | "zstd", pieceBytes: number): Promise<string> {
  const path = join(temporaryDirectory(), "image.qcow2");
  await createImage(path, { format: "qcow2", size: SIZE, compressionType: method });
  await using image = await openImage(path, { format: "qcow2", readOnly: false });
  const pieces = Array.from({ length: SIZE / pieceBytes }, (_, index) => index * pieceBytes);
  await Promise.all(pieces.map((at) => image.writeCompressed(at, CONTENTS.subarray(at, at + pieceBytes))));
  return path;
}

async function expectContents(path: string): Promise<void> {
  await expectCleanCheck(path);
  await using image = await openImage(path, { format: "qcow2", readOnly: true });
  const into = new Uint8Array(SIZE);
  await image.read(0, into);
  expect(Buffer.compare(into, CONTENTS)).toBe(0);
}

describe("an image that is filled with compressed clusters", () => {
  const methods = zstd === undefined ? (["zlib"] as const) : (["zlib", "zstd"] as const);
  for (const method of methods) {
    it.each([false, true])(`is written right by threads (${method}; the threads fail: %s)`, async (broken) => {
      threads.broken = broken;
      const path = await written(method, 2 * MiB);
      await expectContents(path);
      expect(threads.asked).toBeGreaterThan(4);
    });
  }
});

describe("threads that compress", () => {
  it("take clusters in memory that they can see from where they are, and others as copies", async () => {
    const shared = new Uint8Array(new SharedArrayBuffer(4 * CLUSTER));
    shared.set(CONTENTS.subarray(0, 4 * CLUSTER));
    const cut = (bytes: Uint8Array): Uint8Array[] =>
      [0, 2, 3].map((at) => bytes.subarray(at * CLUSTER, (at + 1) * CLUSTER));
    const [seen, copied] = [
      await compressingThreads.compress("deflate", CLUSTER, cut(shared)),
      await compressingThreads.compress("deflate", CLUSTER, cut(CONTENTS)),
    ];
    expect(seen.clusters.map((cluster) => cluster?.length)).toEqual(copied.clusters.map((cluster) => cluster?.length));
    expect(seen.clusters[2]).toBeUndefined();
    seen.clusters.forEach((cluster, index) => {
      if (cluster !== undefined) expect(Buffer.compare(cluster, copied.clusters[index] ?? new Uint8Array(0))).toBe(0);
    });
    seen.release();
    copied.release();
  });
});

describe("what such a thread does", () => {
  const offsets = [0, 3, 5, 1].map((index) => index * CLUSTER);
  const source = new SharedArrayBuffer(8 * CLUSTER);
  new Uint8Array(source).set(CONTENTS.subarray(0, 8 * CLUSTER));
  const request = { zstdLevel: 3, program: import.meta.filename, clusterSize: CLUSTER, source, offsets };

  it("deflates with the window that QEMU reads, the same as the public function of Node.js gives, and tells what does not shrink", () => {
    const into = new SharedArrayBuffer(offsets.length * CLUSTER);
    const work = clusterCompressor();
    // Twice: the state of the compressor is used again.
    for (const lengths of [
      work({ ...request, method: "deflate", into }),
      work({ ...request, method: "deflate", into }),
    ]) {
      expect(lengths[1]).toBe(0);
      lengths.forEach((length, index) => {
        if (length === 0) return;
        const at = offsets[index] ?? 0;
        const expected = deflateRawSync(CONTENTS.subarray(at, at + CLUSTER), { windowBits: 12, memLevel: 9 });
        expect(Buffer.compare(new Uint8Array(into, index * CLUSTER, length), expected)).toBe(0);
      });
    }
  });

  it.runIf(zstd !== undefined)("makes zstd frames that hold the clusters, and tells what does not shrink", async () => {
    const into = new SharedArrayBuffer(offsets.length * CLUSTER);
    const lengths = clusterCompressor()({ ...request, method: "zstd", into });
    expect(lengths[1]).toBe(0);
    for (const [index, length] of lengths.entries()) {
      if (length === 0) continue;
      const frame = new Uint8Array(into, index * CLUSTER, length).slice();
      const back = new Uint8Array(CLUSTER);
      expect(await zstd?.decompress(frame, back)).toBe(CLUSTER);
      const at = offsets[index] ?? 0;
      expect(Buffer.compare(back, CONTENTS.subarray(at, at + CLUSTER))).toBe(0);
    }
  });
});
