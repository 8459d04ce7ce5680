import { describe, expect, it } from "vitest";
import { memoryStorage } from "../../../src/storage/memory-storage.js";
import { offsetStorage } from "../../../src/storage/offset-storage.js";
import type { StorageExtent } from "../../../src/storage/storage.js";

async function extentsOf(runs: AsyncIterable<StorageExtent>): Promise<StorageExtent[]> {
  const all: StorageExtent[] = [];
  for await (const run of runs) all.push(run);
  return all;
}

describe("offsetStorage", () => {
  const ten = (): Uint8Array => Uint8Array.of(0, 1, 2, 3, 4, 5, 6, 7, 8, 9);

  it("moves everything by its offset", async () => {
    const inner = memoryStorage(ten());
    const window = offsetStorage(inner, 3);
    expect(window.size()).toBe(7);
    const bytes = new Uint8Array(2);
    await window.read(1, bytes);
    expect([...bytes]).toEqual([4, 5]);
    await window.write(7, Uint8Array.of(10));
    await window.truncate(9);
    expect([...inner.bytes()]).toEqual([...ten(), 10, 0]);
  });

  it("of fixed size shows zeros behind its end, whatever lies there", async () => {
    const window = offsetStorage(memoryStorage(ten()), 3, 4);
    const bytes = new Uint8Array(6).fill(99);
    await window.read(2, bytes);
    expect([...bytes]).toEqual([5, 6, 0, 0, 0, 0]);
  });

  it("of fixed size never changes what lies outside", async () => {
    const inner = memoryStorage(ten());
    const window = offsetStorage(inner, 3, 4);
    await expect(window.write(3, Uint8Array.of(1, 1))).rejects.toMatchObject({ code: "NO_SPACE", data: { limit: 4 } });
    await expect(window.writeZeroes(0, 5)).rejects.toMatchObject({ code: "NO_SPACE" });
    await expect(window.truncate(4)).rejects.toMatchObject({ code: "STORAGE_UNSUPPORTED" });
    await window.discard(0, 100);
    expect([...inner.bytes()]).toEqual([0, 1, 2, 0, 0, 0, 0, 7, 8, 9]);
  });

  it("may lie past the end of what it shows", async () => {
    const inner = memoryStorage(ten());
    const window = offsetStorage(inner, 20);
    expect(window.size()).toBe(0);
    await window.write(0, Uint8Array.of(5));
    expect([window.size(), inner.size()]).toEqual([1, 21]);
  });

  it("joins the hole at its end with the part behind it", async () => {
    const inner = memoryStorage(4 * 65_536);
    await inner.write(65_536, Uint8Array.of(1));
    expect(await extentsOf(offsetStorage(inner, 65_536, 2 * 65_536).extents(0, 4 * 65_536))).toEqual([
      { offset: 0, length: 65_536, hole: false, hostOffset: 65_536 },
      { offset: 65_536, length: 3 * 65_536, hole: true, hostOffset: 131_072 },
    ]);
  });

  it("refuses an offset that is none", () => {
    expect(() => offsetStorage(memoryStorage(), -1)).toThrow(expect.objectContaining({ code: "INVALID_ARGUMENT" }));
  });
});
