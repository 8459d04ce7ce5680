import { describe, expect, it } from "vitest";
import { RootTable } from "../../../../src/formats/qcow2/root-table.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";

function entry(bytes: Uint8Array, at: number): bigint {
  return new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(at);
}

describe("root table", () => {
  it("writes the entries of an update as they were, and neighbours as the file has them", async () => {
    const storage = memoryStorage(4096);
    const table = new RootTable(1024, new Uint8Array(1024));
    table.set(3, 0x8000_0000, 0x1_0000);
    const update = table.freeze();
    table.set(3, 0x8000_0000, 0x2_0000);
    table.set(4, 0x8000_0000, 0x3_0000);
    await table.write(storage, update);
    expect(entry(storage.bytes(), 1024 + 3 * 8)).toBe(0x8000_0000_0001_0000n);
    expect(entry(storage.bytes(), 1024 + 4 * 8)).toBe(0n);
    table.settle(update);
    expect(table.isDirty).toBe(true);
    await table.write(storage, table.freeze());
    expect(entry(storage.bytes(), 1024 + 3 * 8)).toBe(0x8000_0000_0002_0000n);
    expect(entry(storage.bytes(), 1024 + 4 * 8)).toBe(0x8000_0000_0003_0000n);
  });

  it("is clean when the update that holds the newest values is settled", async () => {
    const storage = memoryStorage(4096);
    const table = new RootTable(0, new Uint8Array(1024));
    table.set(0, 0, 512);
    table.set(100, 0, 1024);
    const update = table.freeze();
    await table.write(storage, update);
    expect(table.isDirty).toBe(true);
    table.settle(update);
    expect(table.isDirty).toBe(false);
    expect(table.freeze().size).toBe(0);
  });
});
