import { deflateRawSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { deflateCodec } from "../../../src/codec/deflate.js";

const CLUSTER = 65_536;

/** Text-like bytes: they shrink, but not to nothing. */
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

async function decompressed(bytes: Uint8Array, length: number): Promise<Uint8Array> {
  const into = new Uint8Array(length);
  await deflateCodec.decompress(bytes, into);
  return into;
}

describe("deflate", () => {
  it("gives back what it was given, at every cluster size", async () => {
    for (const length of [512, 4096, CLUSTER, 2 ** 21]) {
      const contents = wordy(length);
      const bytes = await deflateCodec.compress(contents);
      expect(bytes?.length).toBeLessThan(length);
      expect(Buffer.compare(await decompressed(bytes ?? contents, length), contents)).toBe(0);
    }
  });

  it("says when bytes do not shrink", async () => {
    expect(await deflateCodec.compress(noise(CLUSTER))).toBeUndefined();
    expect(await deflateCodec.compress(noise(512))).toBeUndefined();
  });

  it("refers at most 4 KiB back, because the window of other readers ends there", async () => {
    // The same noise 8 KiB apart shrinks with a larger window only.
    const half = noise(8192);
    const twice = new Uint8Array(16_384);
    twice.set(half);
    twice.set(half, 8192);
    expect(deflateRawSync(twice).length).toBeLessThan(9000);
    expect(await deflateCodec.compress(twice)).toBeUndefined();
  });

  it("ignores bytes after the end of the stream", async () => {
    const bytes = deflateRawSync(wordy(CLUSTER), { windowBits: 12 });
    const padded = Buffer.concat([bytes, noise(700)]);
    expect(Buffer.compare(await decompressed(padded, CLUSTER), wordy(CLUSTER))).toBe(0);
  });

  it("takes a stream without an end that fills the cluster, as stock tools do", async () => {
    const open = deflateRawSync(wordy(CLUSTER), { windowBits: 12, finishFlush: 2 });
    expect(Buffer.compare(await decompressed(open, CLUSTER), wordy(CLUSTER))).toBe(0);
  });

  it("refuses streams that end early, are cut off, damaged, or too long", async () => {
    const short = deflateRawSync(wordy(CLUSTER - 1), { windowBits: 12 });
    await expect(decompressed(short, CLUSTER)).rejects.toThrow(/ends after 65535 of 65536 bytes/);
    const cut = deflateRawSync(wordy(CLUSTER), { windowBits: 12 }).subarray(0, 100);
    await expect(decompressed(cut, CLUSTER)).rejects.toMatchObject({ code: "COMPRESSED_DATA" });
    await expect(decompressed(new Uint8Array(0), CLUSTER)).rejects.toMatchObject({
      code: "COMPRESSED_DATA",
    });
    await expect(decompressed(new Uint8Array(99).fill(255), CLUSTER)).rejects.toThrow(/is damaged/);
    const long = deflateRawSync(wordy(CLUSTER + 1), { windowBits: 12 });
    await expect(decompressed(long, CLUSTER)).rejects.toThrow(/holds more than 65536 bytes/);
  });

  it("stops a bomb at the size of a cluster", async () => {
    const bomb = deflateRawSync(new Uint8Array(2 ** 26), { windowBits: 12 });
    await expect(decompressed(bomb, CLUSTER)).rejects.toThrow(/holds more than 65536 bytes/);
  });
});
