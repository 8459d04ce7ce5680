import { createCipheriv } from "node:crypto";
import { describe, expect, it } from "vitest";
import { deflateCodec } from "../../../src/codec/deflate.js";
import { mayShrink } from "../../../src/codec/shrink-test.js";

const CLUSTER = 65_536;

function random(length: number, seed = 1): Uint8Array {
  return createCipheriv("aes-128-ctr", Buffer.alloc(16, seed), Buffer.alloc(16)).update(new Uint8Array(length));
}

function text(length: number): Uint8Array {
  const line = "a disk holds more than it shows, and less than it could\n";
  return new TextEncoder().encode(line.repeat(Math.ceil(length / line.length)).slice(0, length));
}

/** Random bytes with `part` put over them at `at`. */
function randomWith(part: Uint8Array, at: number, length = CLUSTER): Uint8Array {
  const bytes = Uint8Array.from(random(length));
  bytes.set(part, at);
  return bytes;
}

describe("the test before compressing", () => {
  it.each([4096, CLUSTER, 2 ** 21])("gives up on random clusters of %i bytes", (length) => {
    for (let seed = 1; seed <= 20; seed++) expect(mayShrink(random(length, seed))).toBe(false);
  });

  it.each([512, 4096, CLUSTER, 2 ** 21])("tries text, zeros and counters of %i bytes", (length) => {
    const counters = new Uint8Array(Uint32Array.from({ length: length / 4 }, (_, index) => index * 7).buffer);
    for (const bytes of [text(length), new Uint8Array(length), counters]) expect(mayShrink(bytes)).toBe(true);
  });

  it("tries small clusters whatever they hold", () => {
    expect(mayShrink(random(512))).toBe(true);
  });

  it("finds a compressible block of 4 KiB wherever it lies amid random bytes", () => {
    for (let at = 0; at + 4096 <= CLUSTER; at += 1024) {
      expect(mayShrink(randomWith(text(4096), at))).toBe(true);
      expect(mayShrink(randomWith(new Uint8Array(4096), at))).toBe(true);
    }
  });

  it("finds random bytes that are repeated, in whole sectors anywhere or nearby at any offset", () => {
    const half = random(CLUSTER / 2);
    expect(mayShrink(Buffer.concat([half, half]))).toBe(true);
    const odd = random(1001, 7);
    expect(mayShrink(Buffer.concat(Array.from({ length: 66 }, () => odd)).subarray(0, CLUSTER))).toBe(true);
  });

  it("finds bytes of which some are more frequent than others", () => {
    const skewed = random(CLUSTER).map((byte, index) => (index % 2 === 0 ? byte & 0x7f : byte));
    expect(mayShrink(skewed)).toBe(true);
  });

  it("spares deflate what would not shrink", async () => {
    expect(await deflateCodec.compress(random(CLUSTER))).toBeUndefined();
    const stored = await deflateCodec.compress(randomWith(text(8192), 30_000));
    expect(stored?.length).toBeLessThan(CLUSTER - 7000);
  });
});
