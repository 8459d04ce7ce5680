import { describe, expect, it } from "vitest";
import { DataBuffers } from "../../../../src/protocols/nvme/data-buffers.js";

const MIB = 1024 * 1024;
const fresh = (): DataBuffers => new DataBuffers((bytes) => new Uint8Array(bytes));

describe("DataBuffers", () => {
  it("lends memory again that came back", () => {
    const buffers = fresh();
    const one = buffers.take(4096);
    buffers.give(one);
    expect(buffers.take(8192)).not.toBe(one);
    expect(buffers.take(4096)).toBe(one);
  });

  it("keeps memory of the size in use, though memory of another size filled it before", () => {
    const buffers = fresh();
    for (const one of Array.from({ length: 64 }, () => buffers.take(128 * 1024))) buffers.give(one);
    const large = buffers.take(MIB);
    buffers.give(large);
    expect(buffers.take(MIB)).toBe(large);
  });

  it("keeps at most 8 MiB", () => {
    const buffers = fresh();
    for (const one of Array.from({ length: 20 }, () => buffers.take(MIB))) buffers.give(one);
    expect(buffers.freeBytes).toBe(8 * MIB);
    buffers.give(new Uint8Array(9 * MIB));
    expect(buffers.freeBytes).toBeLessThanOrEqual(8 * MIB);
  });

  it("keeps little of ever new sizes", () => {
    const buffers = fresh();
    for (let size = 1; size <= 10_000; size++) buffers.give(buffers.take(size));
    expect(buffers.freeBytes).toBeLessThan(33 * 10_000);
  });
});
