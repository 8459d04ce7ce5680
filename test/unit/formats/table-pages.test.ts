import { describe, expect, it } from "vitest";
import { TablePages } from "../../../src/formats/table-pages.js";
import { memoryStorage } from "../../../src/storage/memory-storage.js";

function table(entries: readonly number[], width: 4 | 8): TablePages {
  const bytes = new Uint8Array(entries.length * width);
  const view = new DataView(bytes.buffer);
  entries.forEach((entry, index) => view.setUint32(index * width, entry, true));
  return new TablePages(memoryStorage(bytes));
}

describe("entries of a table that are equal", () => {
  it("are counted from the one that is asked for", async () => {
    const pages = table([7, 0, 0, 0, 5], 4);
    expect(await pages.u32(0, true)).toEqual({ value: 7, count: 1 });
    expect(await pages.u32(4, true)).toEqual({ value: 0, count: 3 });
    expect(await pages.u32(8, true)).toEqual({ value: 0, count: 2 });
    expect(await pages.u32(16, false)).toEqual({ value: 0x0500_0000, count: 1 });
  });

  it("are counted no further than wanted, and not all where there are many", async () => {
    const pages = table([], 4);
    expect(await pages.u32(0, true, 3)).toEqual({ value: 0, count: 3 });
    expect((await pages.u32(0, true)).count).toBe(512);
    // A page has 64 KiB.
    expect(await pages.u32(65_536 - 8, true)).toEqual({ value: 0, count: 2 });
  });

  it("are counted in tables of 64 bits by both halves", async () => {
    const pages = table([1, 1, 2], 8);
    expect(await pages.u64(0)).toEqual({ low: 1, high: 0, count: 2 });
    expect(await pages.u64(8)).toEqual({ low: 1, high: 0, count: 1 });
    expect((await pages.u64(24, 100)).count).toBe(100);
  });
});
