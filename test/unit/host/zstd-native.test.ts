import { afterEach, describe, expect, it, vi } from "vitest";
import { nativeZstd } from "../../../src/host/zstd-native.js";

const LENGTH = 65_536;
const zstd = nativeZstd(3);

function text(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => (at * at + seed * (at >>> 5)) % 61);
}

function noise(length: number): Uint8Array {
  let state = 1;
  return Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return state >>> 24;
  });
}

afterEach(() => vi.unstubAllEnvs());

it("is left alone where no native code is wanted", () => {
  vi.stubEnv("ZCOW_NO_NATIVE", "1");
  expect(nativeZstd(3)).toBeUndefined();
});

describe.skipIf(zstd === undefined)("the zstd library of the system", () => {
  it("gives back what it was given, many calls at a time", async () => {
    const all = Array.from({ length: 40 }, (_, seed) => text(LENGTH - seed, seed));
    await Promise.all(
      all.map(async (bytes) => {
        const frame = (await zstd?.compress(bytes, LENGTH)) ?? bytes;
        expect(frame.length).toBeLessThan(bytes.length / 2);
        const into = new Uint8Array(LENGTH).fill(7);
        expect(await zstd?.decompress(frame, into)).toBe(bytes.length);
        expect(Buffer.compare(into.subarray(0, bytes.length), bytes)).toBe(0);
      }),
    );
  });

  it("works on memory that is shared and on parts of larger arrays", async () => {
    const shared = new Uint8Array(new SharedArrayBuffer(3 * LENGTH));
    shared.set(text(LENGTH, 5), 100);
    const frame = (await zstd?.compress(shared.subarray(100, 100 + LENGTH), LENGTH)) ?? shared;
    expect(await zstd?.decompress(frame, shared.subarray(2 * LENGTH - 9, 3 * LENGTH - 9))).toBe(LENGTH);
    expect(Buffer.compare(shared.subarray(2 * LENGTH - 9, 3 * LENGTH - 9), text(LENGTH, 5))).toBe(0);
    expect(shared.at(-9)).toBe(0);
  });

  it("says when a frame would be larger than the limit, and goes on to work", async () => {
    expect(await zstd?.compress(noise(LENGTH), LENGTH - 1)).toBeUndefined();
    expect(await zstd?.compress(text(LENGTH, 1), 1000)).toBeUndefined();
    expect((await zstd?.compress(text(LENGTH, 1), LENGTH - 1))?.length).toBeLessThan(LENGTH / 2);
  });

  it("refuses damaged frames and those that do not fit, and writes nothing past the end", async () => {
    const frame = (await zstd?.compress(text(LENGTH, 2), LENGTH)) ?? new Uint8Array(0);
    const place = new Uint8Array(LENGTH).fill(7);
    await expect(zstd?.decompress(frame, place.subarray(0, LENGTH - 100))).rejects.toThrow(/zstd error 70/);
    expect(place.subarray(LENGTH - 100).every((byte) => byte === 7)).toBe(true);
    await expect(zstd?.decompress(noise(500), place)).rejects.toThrow(/zstd error/);
    await expect(zstd?.decompress(frame.subarray(0, 50), place)).rejects.toThrow(/zstd error/);
    expect(await zstd?.decompress(frame, place)).toBe(LENGTH);
  });
});
