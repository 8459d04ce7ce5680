import { describe, expect, it } from "vitest";
import { faultStorage } from "../../../src/storage/fault-storage.js";
import { memoryStorage } from "../../../src/storage/memory-storage.js";
import { type StorageTrace, tracingStorage } from "../../../src/storage/tracing-storage.js";

describe("tracingStorage", () => {
  it("tells of every call when it is done", async () => {
    const traces: StorageTrace[] = [];
    const storage = tracingStorage(memoryStorage(100), (trace) => traces.push(trace));
    await storage.read(1, new Uint8Array(2));
    await storage.write(3, new Uint8Array(4));
    await storage.writeZeroes(5, 6);
    await storage.discard(7, 8);
    await storage.flush();
    await storage.truncate(9);
    expect(traces.map(({ kind, at, length, synchronous }) => [kind, at, length, synchronous])).toEqual([
      ["read", 1, 2, true],
      ["write", 3, 4, true],
      ["writeZeroes", 5, 6, true],
      ["discard", 7, 8, true],
      ["flush", 0, 0, true],
      ["truncate", 0, 9, true],
    ]);
    expect(traces.every(({ milliseconds }) => milliseconds >= 0)).toBe(true);
  });

  it("tells of failures and of calls that take a while, in the order in which they finish", async () => {
    const traces: StorageTrace[] = [];
    const faults = faultStorage(memoryStorage(100), {
      rules: [
        { fault: { type: "delay", milliseconds: 20 }, nth: 1 },
        { fault: { type: "error" }, nth: 2 },
      ],
    });
    const storage = tracingStorage(faults, (trace) => traces.push(trace));
    const slow = storage.read(0, new Uint8Array(1));
    await expect(storage.write(1, new Uint8Array(1))).rejects.toMatchObject({ code: "IO_ERROR" });
    await slow;
    expect(traces.map(({ kind, synchronous, error }) => [kind, synchronous, error instanceof Error])).toEqual([
      ["write", false, true],
      ["read", false, false],
    ]);
  });
});
