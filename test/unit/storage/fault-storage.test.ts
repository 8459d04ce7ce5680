import { describe, expect, it } from "vitest";
import { type FaultPlan, type FaultStorage, faultStorage } from "../../../src/storage/fault-storage.js";
import { type MemoryStorage, memoryStorage } from "../../../src/storage/memory-storage.js";

function planned(plan: FaultPlan): { storage: FaultStorage; inner: MemoryStorage } {
  const inner = memoryStorage(new Uint8Array(1000));
  return { storage: faultStorage(inner, plan), inner };
}

/** For each of `count` one-byte writes of `value`: did it fail? */
async function failures(storage: FaultStorage, count: number, value = 1): Promise<boolean[]> {
  const failed: boolean[] = [];
  for (let index = 0; index < count; index++) {
    failed.push(
      await (async () => storage.write(index, Uint8Array.of(value)))().then(
        () => false,
        () => true,
      ),
    );
  }
  return failed;
}

const error = { type: "error" } as const;

describe("faultStorage", () => {
  it("fails the n-th call of a kind, once, and does nothing then", async () => {
    const { storage, inner } = planned({ rules: [{ fault: error, kinds: ["write"], nth: 2 }] });
    await storage.read(0, new Uint8Array(1));
    expect(await failures(storage, 4)).toEqual([false, true, false, false]);
    expect([...inner.bytes().subarray(0, 4)]).toEqual([1, 0, 1, 1]);
    expect(storage.faults).toEqual([{ kind: "write", at: 1, length: 1, call: 3, fault: error }]);
    expect([storage.calls(), storage.calls("write"), storage.calls("flush")]).toEqual([5, 4, 0]);
  });

  it("fails every n-th call, or all from the n-th on, until healed", async () => {
    const every = planned({ rules: [{ fault: error, every: 3 }] }).storage;
    expect(await failures(every, 6)).toEqual([false, false, true, false, false, true]);
    const from = planned({ rules: [{ fault: error, from: 2 }] }).storage;
    expect(await failures(from, 3)).toEqual([false, true, true]);
    from.heal();
    expect(await failures(from, 2)).toEqual([false, false]);
  });

  it("picks calls by place", async () => {
    const { storage } = planned({ rules: [{ fault: error, where: ({ at }) => at === 2 }] });
    expect(await failures(storage, 4)).toEqual([false, false, true, false]);
  });

  it("tears writes and reads", async () => {
    const torn = { type: "torn", bytes: 3 } as const;
    const { storage, inner } = planned({ rules: [{ fault: torn, every: 1 }] });
    await expect(storage.write(0, new Uint8Array(8).fill(5))).rejects.toMatchObject({ code: "IO_ERROR" });
    expect([...inner.bytes().subarray(0, 5)]).toEqual([5, 5, 5, 0, 0]);
    const into = new Uint8Array(5).fill(9);
    await expect(storage.read(0, into)).rejects.toMatchObject({ code: "IO_ERROR" });
    expect([...into]).toEqual([5, 5, 5, 9, 9]);
    await expect(storage.truncate(1)).rejects.toMatchObject({ code: "IO_ERROR" });
    expect(inner.size()).toBe(1000);
  });

  it("loses answers of calls that were made", async () => {
    const { storage, inner } = planned({ rules: [{ fault: { type: "lost", code: "NO_SPACE" }, nth: 1 }] });
    await expect(storage.write(0, Uint8Array.of(4))).rejects.toMatchObject({ code: "NO_SPACE" });
    expect(inner.bytes()[0]).toBe(4);
  });

  it("runs out of space in the middle of a write, at the end of a sector, and stays full", async () => {
    const inner = memoryStorage(4096);
    const storage = faultStorage(inner, { space: 1400 });
    await storage.write(0, new Uint8Array(100).fill(1));
    await expect(storage.write(100, new Uint8Array(2000).fill(2))).rejects.toMatchObject({
      code: "NO_SPACE",
      errno: "ENOSPC",
    });
    await expect(storage.write(2500, Uint8Array.of(3))).rejects.toMatchObject({ code: "NO_SPACE" });
    const bytes = inner.bytes();
    expect([bytes[99], bytes[100], bytes[1023], bytes[1024], bytes[2500]]).toEqual([1, 2, 2, 0, 0]);
    storage.heal();
    await storage.write(2500, Uint8Array.of(3));
  });

  it("delays calls, and waits for them when it is closed", async () => {
    const { storage, inner } = planned({ rules: [{ fault: { type: "delay", milliseconds: 5 }, kinds: ["write"] }] });
    const write = storage.write(0, Uint8Array.of(1));
    expect(write).toBeInstanceOf(Promise);
    expect(inner.bytes()[0]).toBe(0);
    await storage.close();
    await write;
    expect(inner.bytes()[0]).toBe(1);
  });

  it("does the same on every run", async () => {
    const plan: FaultPlan = {
      rules: [
        { fault: error, every: 3 },
        { fault: { type: "torn", bytes: 0 }, every: 4 },
      ],
    };
    const [a, b] = [planned(plan).storage, planned(plan).storage];
    expect(await failures(a, 24)).toEqual(await failures(b, 24));
    expect(a.faults).toEqual(b.faults);
    expect(a.faults.length).toBe(12);
  });
});
