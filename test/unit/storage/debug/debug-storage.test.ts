import { describe, expect, it } from "vitest";
import { parseDebugConfig } from "../../../../src/storage/debug/config.js";
import { debugStorage } from "../../../../src/storage/debug/debug-storage.js";
import type { DebugEvent, StorageDebug } from "../../../../src/storage/debug/events.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import type { Storage } from "../../../../src/storage/storage.js";
import { tracingStorage } from "../../../../src/storage/tracing-storage.js";

const SIZE = 64 * 1024;

function steered(config: string): { readonly storage: Storage; readonly tell: (event: DebugEvent) => void } {
  const storage = debugStorage(memoryStorage(SIZE), { rules: parseDebugConfig(config, "test") });
  return { storage, tell: (event) => storage.debug?.event(event) };
}

function debugOf(storage: Storage): StorageDebug {
  if (storage.debug === undefined) throw new Error("there is nothing to steer");
  return storage.debug;
}

const failure = async (call: () => unknown): Promise<unknown> => {
  try {
    await call();
    return undefined;
  } catch (error) {
    return (error as { code: string; errno: string }).errno;
  }
};

const read = (storage: Storage, at = 0) => failure(() => storage.read(at, new Uint8Array(512)));
const write = (storage: Storage, at = 0) => failure(() => storage.write(at, new Uint8Array(512)));

describe("injected errors", () => {
  it("begin with their event, and go on", async () => {
    const { storage, tell } = steered('[inject-error]\nevent = "read_aio"\nerrno = "28"\n');
    expect(await read(storage)).toBeUndefined();
    tell("read_aio");
    expect([await read(storage), await write(storage)]).toEqual(["ENOSPC", "ENOSPC"]);
  });

  it("hit one call where they are to come once, of the default error", async () => {
    const { storage, tell } = steered('[inject-error]\nevent = "read_aio"\nonce = "on"\n');
    tell("read_aio");
    expect([await read(storage), await read(storage)]).toEqual(["EIO", undefined]);
    tell("read_aio");
    expect(await read(storage)).toBeUndefined();
  });

  it("are there from the start with the event none", async () => {
    const { storage } = steered('[inject-error]\nevent = "none"\n');
    expect(await read(storage)).toBe("EIO");
  });

  it("hit only calls that touch their sector", async () => {
    const { storage } = steered('[inject-error]\nevent = "none"\nsector = "4"\n');
    expect([await read(storage, 0), await read(storage, 2047), await read(storage, 2560)]).toEqual([
      undefined,
      "EIO",
      undefined,
    ]);
    expect(await read(storage, 2049)).toBeUndefined();
  });

  it.each(["read", "write", "write-zeroes", "discard", "flush"])("hit only calls of their kind: %s", async (kind) => {
    const { storage } = steered(`[inject-error]\nevent = "none"\niotype = "${kind}"\n`);
    const results = {
      read: await read(storage),
      write: await write(storage),
      "write-zeroes": await failure(() => storage.writeZeroes(0, 512)),
      discard: await failure(() => storage.discard(0, 512)),
      flush: await failure(() => storage.flush()),
    };
    expect(Object.entries(results).filter(([, errno]) => errno !== undefined)).toEqual([[kind, "EIO"]]);
  });

  it("hit questions about holes only when they are meant", async () => {
    const ask = (storage: Storage) =>
      failure(async () => {
        for await (const run of storage.extents(0, 512)) void run;
      });
    expect(await ask(steered('[inject-error]\nevent = "none"\n').storage)).toBeUndefined();
    expect(await ask(steered('[inject-error]\nevent = "none"\niotype = "block-status"\n').storage)).toBe("EIO");
  });

  it("follow the state, which events change", async () => {
    const { storage, tell } = steered(`
      [set-state]
      event = "l2_load"
      state = "1"
      new_state = "7"

      # only in the new state
      [inject-error]
      event = "write_aio"
      state = "7"
    `);
    tell("write_aio");
    expect(await write(storage)).toBeUndefined();
    tell("l2_load");
    tell("write_aio");
    expect(await write(storage)).toBe("EIO");
  });

  it("are replaced by those of the next event that has some", async () => {
    const { storage, tell } = steered(
      '[inject-error]\nevent = "read_aio"\nerrno = "5"\n[inject-error]\nevent = "write_aio"\nerrno = "28"\n',
    );
    tell("read_aio");
    tell("write_aio");
    expect(await read(storage)).toBe("ENOSPC");
    tell("l2_load");
    expect(await read(storage)).toBe("ENOSPC");
  });
});

describe("configurations", () => {
  it.each([
    ['event = "read_aio"\n', /no group defined/],
    ["[nonsense]\n", /no option group 'nonsense'/],
    ["[inject-error]\nevent read_aio\n", /line 2: parse error/],
    ['[inject-error]\nerrno = "5"\n', /names no event/],
    ['[inject-error]\nevent = "x"\n', /no event 'x'/],
    ['[inject-error]\nevent = "none"\nerrno = "4000"\n', /no error 4000/],
    ['[inject-error]\nevent = "none"\niotype = "peek"\n', /no kind of request 'peek'/],
    ['[set-state]\nevent = "none"\nerrno = "5"\n', /no setting 'errno'/],
  ])("refuses %j", (text, message) => {
    expect(() => parseDebugConfig(text, "file")).toThrow(message);
  });
});

describe("limits", () => {
  it("make misaligned writes read what surrounds them, and tell of it", async () => {
    const calls: string[] = [];
    const inner = memoryStorage(new Uint8Array(SIZE).fill(1));
    const traced = tracingStorage(inner, ({ kind, at, length }) => void calls.push(`${kind} ${at} ${length}`));
    const storage = debugStorage(traced, { limits: { align: 4096, maxTransfer: 8192 } });
    await storage.write(5000, new Uint8Array(12_000).fill(2));
    expect(calls).toEqual(["read 4096 4096", "read 16384 4096", "write 4096 8192", "write 12288 8192"]);
    const expected = new Uint8Array(SIZE).fill(1).fill(2, 5000, 17_000);
    expect(Buffer.compare(inner.bytes(), expected)).toBe(0);
    const bytes = new Uint8Array(100);
    await storage.read(4950, bytes);
    expect(bytes).toEqual(expected.slice(4950, 5050));
  });
});

describe("breakpoints", () => {
  it("hold one call, until it is resumed", async () => {
    const seen: string[] = [];
    const storage = debugStorage(memoryStorage(SIZE), {
      onBreakpoint: (what, tag) => void seen.push(`${what} ${tag}`),
    });
    const debug = debugOf(storage);
    debug.breakAt("write_aio", "A");
    debug.event("write_aio");
    const held = Promise.resolve(storage.write(0, Uint8Array.of(7))).then(() => seen.push("written"));
    await debug.waitFor("A");
    debug.event("write_aio");
    await storage.write(512, Uint8Array.of(8));
    expect(seen).toEqual(["suspended A"]);
    expect([debug.resume("B"), debug.resume("A"), debug.resume("A")]).toEqual([false, true, false]);
    await held;
    expect(seen).toEqual(["suspended A", "resumed A", "written"]);
  });

  it("are forgotten when they are removed, and hold nobody back when the storage is closed", async () => {
    const storage = debugStorage(memoryStorage(SIZE));
    const debug = debugOf(storage);
    debug.breakAt("read_aio", "A");
    expect([debug.removeBreak("A"), debug.removeBreak("A")]).toEqual([true, false]);
    debug.event("read_aio");
    await storage.read(0, new Uint8Array(1));
    debug.breakAt("read_aio", "B");
    debug.event("read_aio");
    const held = storage.read(0, new Uint8Array(1));
    await Promise.all([storage.close(), held]);
  });
});
