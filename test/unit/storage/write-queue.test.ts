import * as fs from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { isInMemory } from "../../../src/host/memory-files.js";
import { WriteQueue } from "../../../src/storage/write-queue.js";

vi.mock("node:fs", async (original) => {
  const real = await original<typeof fs>();
  return { ...real, writev: vi.fn(real.writev), write: vi.fn(real.write) };
});

vi.mock("../../../src/host/memory-files.js", () => ({ isInMemory: vi.fn(() => false) }));

let folder = "";
let fd = -1;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "zcow-write-queue-"));
  fd = fs.openSync(join(folder, "file"), "w+");
  vi.mocked(fs.writev).mockClear();
  vi.mocked(fs.write).mockClear();
});

afterEach(async () => {
  fs.closeSync(fd);
  await rm(folder, { recursive: true });
});

function contents(): Uint8Array {
  return fs.readFileSync(join(folder, "file"));
}

function bytes(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

describe("a queue of writes", () => {
  it("joins neighbours that wait, and no others", async () => {
    const queue = new WriteQueue(fd);
    const places = [0, 100, 200, 300, 1000, 1100, 400];
    await Promise.all(places.map((at, index) => queue.write(at, bytes(100, index + 1))));
    const expected = new Uint8Array(1200);
    places.forEach((at, index) => expected.fill(index + 1, at, at + 100));
    expect(Buffer.compare(contents(), expected)).toBe(0);
    // The first went out at once.
    expect(vi.mocked(fs.writev).mock.calls.map(([, parts, at]) => [at, parts.length])).toEqual([
      [100, 3],
      [1000, 2],
    ]);
    expect(vi.mocked(fs.write)).toHaveBeenCalledTimes(2);
  });

  it("has one write on its way at a time", async () => {
    const queue = new WriteQueue(fd);
    let running = 0;
    let most = 0;
    const real = await vi.importActual<typeof fs>("node:fs");
    vi.mocked(fs.write).mockImplementation((...args: unknown[]) => {
      most = Math.max(most, ++running);
      const done = args.at(-1) as (...results: unknown[]) => void;
      const watched = (...results: unknown[]): void => {
        running -= 1;
        done(...results);
      };
      (real.write as (...all: unknown[]) => void)(...args.slice(0, -1), watched);
    });
    await Promise.all(Array.from({ length: 20 }, (_, index) => queue.write(index * 1000, bytes(100, index))));
    vi.mocked(fs.write).mockImplementation(real.write);
    expect(most).toBe(1);
  });

  it.each([
    { where: "on a disk", isMemory: false, expected: [2, 2, 2, 2] },
    { where: "in memory", isMemory: true, expected: [4, 4] },
  ])("never joins more than so much $where", async ({ isMemory, expected }) => {
    vi.mocked(isInMemory).mockReturnValueOnce(isMemory);
    const queue = new WriteQueue(fd);
    const piece = 1024 * 1024;
    await Promise.all(Array.from({ length: 10 }, (_, index) => queue.write(index * piece, bytes(piece, index))));
    const counts = vi.mocked(fs.writev).mock.calls.map(([, parts]) => parts.length);
    expect(counts).toEqual(expected);
    expect(contents().every((value, at) => value === Math.floor(at / piece))).toBe(true);
  });

  it("writes each by itself when a joined write stops short or fails, and tells each its own failure", async () => {
    const queue = new WriteQueue(fd);
    vi.mocked(fs.writev).mockImplementationOnce((...args: unknown[]) => {
      (args.at(-1) as (error: Error | null, count: number) => void)(null, 150);
    });
    await Promise.all([0, 100, 200].map((at) => queue.write(at, bytes(100, 9))));
    expect(contents()).toHaveLength(300);
    expect(contents().every((value) => value === 9)).toBe(true);
    const full = Object.assign(new Error("no space"), { code: "ENOSPC" });
    vi.mocked(fs.writev).mockImplementationOnce((...args: unknown[]) => {
      (args.at(-1) as (error: Error) => void)(full);
    });
    const real = await vi.importActual<typeof fs>("node:fs");
    vi.mocked(fs.write).mockImplementation((...args: unknown[]) => {
      if (args[4] === 400) (args.at(-1) as (error: Error) => void)(full);
      else (real.write as (...all: unknown[]) => void)(...args);
    });
    const writes = [300, 400, 500].map((at, index) => queue.write(at, bytes(100, index + 1)));
    const results = await Promise.allSettled(writes);
    vi.mocked(fs.write).mockImplementation(real.write);
    expect(results.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
    await queue.write(400, bytes(100, 2));
    expect([...contents().subarray(300)]).toEqual([...bytes(100, 1), ...bytes(100, 2), ...bytes(100, 3)]);
  });
});
