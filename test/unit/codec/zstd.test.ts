import { describe, expect, it } from "vitest";
import { readZstdFrame } from "../../../src/codec/zstd/frame.js";
import { zstdCodec } from "../../../src/codec/zstd/zstd.js";
import { hostZstd } from "../../../src/host/zstd-library.js";

const CLUSTER = 65_536;
const library = hostZstd();
if (library === undefined) throw new Error("zstd is missing: the optional packages were not installed");
const codec = zstdCodec(library);

function wordy(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => (at * at + (at >>> 5)) % 61);
}

function noise(length: number): Uint8Array {
  let state = 1;
  return Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return state >>> 24;
  });
}

async function compressed(contents: Uint8Array): Promise<Uint8Array> {
  const bytes = await codec.compress(contents);
  if (bytes === undefined) throw new Error("the test wants bytes that shrink");
  return bytes;
}

async function decompressed(bytes: Uint8Array, length: number): Promise<Uint8Array> {
  const into = new Uint8Array(length);
  await codec.decompress(bytes, into);
  return into;
}

/** A frame of one block, of the given type: 0 stored, 1 run of one byte. */
function frameOf(type: number, size: number, body: Uint8Array): Uint8Array {
  const block = 1 + type * 2 + size * 8;
  return Buffer.concat([Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0, 0x58, block, block >>> 8, block >>> 16), body]);
}

describe("zstd", () => {
  it("gives back what it was given, at every cluster size", async () => {
    for (const length of [512, 4096, CLUSTER, 2 ** 21]) {
      const bytes = await compressed(wordy(length));
      expect(Buffer.compare(await decompressed(bytes, length), wordy(length))).toBe(0);
    }
  });

  it("says when bytes do not shrink", async () => {
    expect(await codec.compress(noise(CLUSTER))).toBeUndefined();
    expect(await codec.compress(noise(512))).toBeUndefined();
  });

  it("ignores bytes after the frame, be they noise, zeros or another frame", async () => {
    const bytes = await compressed(wordy(CLUSTER));
    for (const tail of [noise(700), new Uint8Array(13), bytes]) {
      const padded = Buffer.concat([bytes, tail]);
      expect(Buffer.compare(await decompressed(padded, CLUSTER), wordy(CLUSTER))).toBe(0);
    }
  });

  it("goes on with further frames until the cluster is full", async () => {
    const halves = [wordy(CLUSTER).subarray(0, 20_000), wordy(CLUSTER).subarray(20_000)];
    const frames = await Promise.all(halves.map(compressed));
    const skipped = Uint8Array.of(0x53, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9);
    const bytes = Buffer.concat([skipped, ...frames, noise(99)]);
    expect(Buffer.compare(await decompressed(bytes, CLUSTER), wordy(CLUSTER))).toBe(0);
  });

  it("finds the end of frames of stored bytes and runs", () => {
    expect(readZstdFrame(Buffer.concat([frameOf(0, 5, noise(5)), noise(3)]))).toMatchObject({ length: 14, atMost: 5 });
    expect(readZstdFrame(frameOf(1, 100_000, noise(1)))).toMatchObject({ length: 10, atMost: 100_000 });
  });

  it("refuses frames that are cut off at any byte", async () => {
    const bytes = await compressed(wordy(4096));
    for (let length = 0; length < bytes.length; length += 1) {
      await expect(decompressed(bytes.subarray(0, length), 4096)).rejects.toMatchObject({
        code: "COMPRESSED_DATA",
      });
    }
  });

  it("refuses frames that hold too little, too much, or are damaged", async () => {
    const short = await compressed(wordy(CLUSTER - 1));
    await expect(decompressed(short, CLUSTER)).rejects.toMatchObject({ code: "COMPRESSED_DATA" });
    const long = await compressed(wordy(CLUSTER + 1));
    await expect(decompressed(long, CLUSTER)).rejects.toMatchObject({ code: "COMPRESSED_DATA" });
    await expect(decompressed(noise(500), CLUSTER)).rejects.toThrow(/does not start with a frame/);
    const damaged = Buffer.from(await compressed(wordy(CLUSTER)));
    damaged.fill(0xff, 20, 40);
    await expect(decompressed(damaged, CLUSTER)).rejects.toMatchObject({ code: "COMPRESSED_DATA" });
  });

  it("refuses dictionaries, reserved bits and reserved blocks", async () => {
    const good = frameOf(0, 5, noise(5));
    const dictionary = Buffer.concat([good.subarray(0, 4), Uint8Array.of(1, 0x58, 7), good.subarray(6)]);
    await expect(decompressed(dictionary, 5)).rejects.toThrow(/needs a dictionary/);
    await expect(decompressed(good.with(4, 8), 5)).rejects.toThrow(/reserved bit/);
    await expect(decompressed(frameOf(3, 5, noise(5)), 5)).rejects.toThrow(/reserved type/);
  });

  it("refuses bombs before they are decoded", async () => {
    let decoded = 0;
    const watched = zstdCodec({
      ...library,
      decompress: (frame, into) => {
        decoded += 1;
        return library.decompress(frame, into);
      },
    });
    const size = 131_072 * 8 + 2;
    const run = Uint8Array.of(size, size >>> 8, size >>> 16);
    const header = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0, 0x58);
    const blocks = Array.from({ length: 10_000 }, () => Buffer.concat([run, Uint8Array.of(0)]));
    const bomb = Buffer.concat([header, ...blocks, Uint8Array.of(1, 0, 0)]);
    await expect(watched.decompress(bomb, new Uint8Array(CLUSTER))).rejects.toThrow(/could hold 1310720000 bytes/);
    const empty = frameOf(0, 0, new Uint8Array(0));
    const manyFrames = Buffer.concat(Array.from({ length: 5000 }, () => empty));
    await expect(watched.decompress(manyFrames, new Uint8Array(CLUSTER))).rejects.toThrow(/more than 1024 frames/);
    expect(decoded).toBe(1024);
  });
});
