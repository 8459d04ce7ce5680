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
    const pool = new AlignedBufferPool(4096, 2);
    const [a, b] = [pool.take(), pool.take()];
    expect(a).not.toBe(b);
    pool.giveBack(a);
    expect(pool.take()).toBe(a);
    expect(pool.take()).not.toBe(b);
  });

  it("keeps at most as many idle buffers as it was told", () => {
    const pool = new AlignedBufferPool(4096, 1);
    const [a, b] = [pool.take(), pool.take()];
    pool.giveBack(a);
    pool.giveBack(b);
    expect(pool.take()).toBe(a);
    expect(pool.take()).not.toBe(b);
  });
});
