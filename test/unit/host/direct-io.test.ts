import { describe, expect, it } from "vitest";
import { AlignedBufferPool, alignedBuffer, DIRECT_ALIGNMENT } from "../../../src/host/direct-io.js";
import { nativeCalls } from "../../../src/host/native.js";

describe("alignedBuffer", () => {
  it.each([1, 4096, 65_536, 65_537, 1_000_000])("gives %d zeroed bytes", (length) => {
    const buffer = alignedBuffer(length);
    expect(buffer.length).toBe(length);
    expect(buffer.every((byte) => byte === 0)).toBe(true);
  });

  it.skipIf(nativeCalls() === undefined)("starts at a multiple of the alignment", () => {
    for (let index = 0; index < 10; index++) {
      expect((nativeCalls()?.address(alignedBuffer(4096)) ?? Number.NaN) % DIRECT_ALIGNMENT).toBe(0);
    }
  });
});

describe("AlignedBufferPool", () => {
  it("lends a buffer again that came back, but never one that is out", () => {
    const pool = new AlignedBufferPool(1 << 20);
    const out = [pool.take(DIRECT_ALIGNMENT), pool.take(DIRECT_ALIGNMENT)];
    expect(out[0]).not.toBe(out[1]);
    pool.giveBack(out[0] as Uint8Array);
    expect(pool.take(DIRECT_ALIGNMENT)).toBe(out[0]);
    expect(pool.take(DIRECT_ALIGNMENT)).not.toBe(out[1]);
  });

  it("keeps at most as many idle bytes as it was told", () => {
    const pool = new AlignedBufferPool(1 << 20);
    const out = [pool.take(1 << 20), pool.take(1 << 20)];
    for (const buffer of out) pool.giveBack(buffer);
    expect(pool.take(1 << 20)).toBe(out[0]);
    expect(out).not.toContain(pool.take(1 << 20));
  });

  it("lends buffers that are large enough, begin at a multiple of the alignment and share nothing", () => {
    const pool = new AlignedBufferPool(1 << 20);
    const lengths = [1, DIRECT_ALIGNMENT, DIRECT_ALIGNMENT + 1, 65_536, 300_000, 4096, 4096];
    const buffers = lengths.map((length) => pool.take(length));
    for (const [index, buffer] of buffers.entries()) {
      expect(buffer.length).toBeGreaterThanOrEqual(lengths[index] ?? 0);
      expect(buffer.byteOffset % DIRECT_ALIGNMENT).toBe(0);
      buffer.fill(index);
    }
    for (const [index, buffer] of buffers.entries()) expect(buffer.every((byte) => byte === index)).toBe(true);
  });
});
