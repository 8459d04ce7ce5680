import { copyFileSync, openSync, writeSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ZcowError } from "../../../../src/base/errors.js";
import { MiB } from "../../../../src/base/units.js";
import type { BlockDevice } from "../../../../src/block/block-device.js";
import { openRaw } from "../../../../src/formats/raw/device.js";
import { compareDisks } from "../../../../src/jobs/compare/compare.js";
import { placesComparer } from "../../../../src/jobs/compare/comparing-thread.js";
import { openFileStorage } from "../../../../src/storage/file-storage.js";
import { temporaryDirectory } from "../../../support/stock-tools.js";

const thread = vi.hoisted(() => ({ asked: 0, broken: false }));

vi.mock("../../../../src/host/side-thread.js", async (original) => {
  const { SideThread } = await original<{
    SideThread: new (make: unknown) => { ask(request: unknown): Promise<unknown> };
  }>();
  class Watched extends SideThread {
    override ask(request: unknown): Promise<unknown> {
      thread.asked += 1;
      return thread.broken ? Promise.reject(new Error("no thread")) : super.ask(request);
    }
  }
  return { SideThread: Watched };
});

const SIZE = 72 * MiB;
let paths: [string, string];
let devices: BlockDevice[] = [];

function put(path: string, at: number): void {
  writeSync(openSync(path, "r+"), Uint8Array.of(1), 0, 1, at);
}

async function opened(): Promise<[BlockDevice, BlockDevice]> {
  devices = await Promise.all(paths.map(async (path) => openRaw(await openFileStorage(path, { lock: false }))));
  return devices as [BlockDevice, BlockDevice];
}

beforeEach(async () => {
  const folder = temporaryDirectory();
  paths = [join(folder, "a"), join(folder, "b")];
  const file = await open(paths[0], "w");
  const piece = Uint8Array.from({ length: MiB }, (_, at) => 1 + ((at * at) % 251));
  for (let at = 0; at < SIZE; at += MiB) await file.write(piece, 0, MiB, at);
  await file.close();
  copyFileSync(paths[0], paths[1]);
  thread.asked = 0;
  thread.broken = false;
});

afterEach(async () => {
  await Promise.all(devices.map((device) => device.close()));
});

describe("comparing large disks in files", () => {
  it.each([false, true])("finds equal ones equal with the help of another thread (which fails: %s)", async (broken) => {
    thread.broken = broken;
    const [a, b] = await opened();
    let told = 0;
    const onProgress = (done: number): void => {
      told = done;
    };
    expect(await compareDisks(a, b, { onProgress })).toEqual({ verdict: "same", zones: "none" });
    expect(thread.asked).toBeGreaterThan(0);
    expect(told).toBe(SIZE);
  });

  it.each([false, true])("finds the lowest of several differences (thread fails: %s)", async (broken) => {
    thread.broken = broken;
    for (const at of [SIZE - 1, 60 * MiB, 41 * MiB + 5000, 41 * MiB + 4000, 50 * MiB]) put(paths[1], at);
    const [a, b] = await opened();
    expect(await compareDisks(a, b)).toEqual({ verdict: "content", offset: 41 * MiB + 3584 });
    expect(thread.asked).toBeGreaterThan(0);
  });

  it.each([36, 40, 44, 48, 71])("finds a difference at MiB %d, whichever thread has to find it", async (at) => {
    put(paths[0], at * MiB + 513);
    const [a, b] = await opened();
    expect(await compareDisks(a, b)).toEqual({ verdict: "content", offset: at * MiB + 512 });
  });

  it("tells of a read that fails in this thread after the other one could not do it", async () => {
    thread.broken = true;
    const [a, b] = await opened();
    const error = new ZcowError("IO_ERROR", "broken");
    const read = b.read.bind(b);
    Object.defineProperty(b, "read", {
      value: (offset: number, into: Uint8Array) => {
        if (offset > 50 * MiB) throw error;
        return read(offset, into);
      },
    });
    expect(await compareDisks(a, b)).toEqual({ verdict: "unreadable", side: "second", offset: 50 * MiB, error });
  });

  it("leaves disks that may change to this thread", async () => {
    const [a] = await opened();
    const b = openRaw(await openFileStorage(paths[1], { lock: false, writable: true }));
    devices.push(b);
    expect(await compareDisks(a, b)).toEqual({ verdict: "same", zones: "none" });
    expect(thread.asked).toBe(0);
  });
});

describe("what the thread does", () => {
  it("compares places of two files, and takes what is past their ends for zeros", async () => {
    const [first, second] = [openSync(paths[0], "r"), openSync(paths[1], "r")];
    const compare = placesComparer();
    expect(compare({ first, second, places: [0, 0, SIZE] })).toBe(true);
    expect(compare({ first, second, places: [0, MiB, 3 * MiB, 5, 5, 7] })).toBe(true);
    expect(compare({ first, second, places: [0, 0, 100, 0, 1, 100] })).toBe(false);
    expect(compare({ first, second, places: [SIZE, SIZE + 9, MiB] })).toBe(true);
    expect(compare({ first, second, places: [SIZE - 1, SIZE, 100] })).toBe(false);
    expect(compare({ first: 9999, second, places: [0, 0, 1] })).toBe(false);
  });
});
