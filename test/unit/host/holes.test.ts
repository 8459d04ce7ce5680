import { closeSync, existsSync, fstatSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { dataHoleRuns } from "../../../src/host/data-hole-map.js";
import { nativeCalls } from "../../../src/host/native.js";
import { canPunchHoles, punchHole, zeroRange } from "../../../src/host/punch-hole.js";

const loaded = nativeCalls();
const folders = [tmpdir(), "/dev/shm"].filter((folder) => existsSync(folder));

describe.skipIf(loaded === undefined).each(folders)("holes in a file in %s", (parent) => {
  if (loaded === undefined) return;
  const calls = loaded;
  const size = 4 * 1024 * 1024;
  let folder: string;
  let fd: number;

  beforeEach(() => {
    folder = mkdtempSync(join(parent, "zcow-test-"));
    fd = openSync(join(folder, "disk"), "w+");
    writeSync(fd, new Uint8Array(size).fill(7));
  });

  afterEach(() => {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  });

  function byteAt(at: number): number | undefined {
    const one = new Uint8Array(1);
    readSync(fd, one, 0, 1, at);
    return one[0];
  }

  it("can be punched here", () => {
    expect(canPunchHoles(calls, fd, size)).toBe(true);
    expect(fstatSync(fd).size).toBe(size);
  });

  it.each(["here", "pool", "auto"] as const)("give space back, %s", async (place) => {
    const before = fstatSync(fd).blocks;
    expect(await punchHole(calls, fd, 65_536, 2 * 1024 * 1024, place)).toBe(true);
    expect(fstatSync(fd).blocks).toBeLessThanOrEqual(before - 4096);
    expect(fstatSync(fd).size).toBe(size);
    expect([
      byteAt(65_535),
      byteAt(65_536),
      byteAt(65_536 + 2 * 1024 * 1024 - 1),
      byteAt(65_536 + 2 * 1024 * 1024),
    ]).toEqual([7, 0, 0, 7]);
  });

  it("show in the map", async () => {
    await punchHole(calls, fd, 65_536, 131_072, "here");
    await punchHole(calls, fd, 1_048_576, 65_536, "here");
    expect([...dataHoleRuns(calls, fd, 0, size)]).toEqual([
      { offset: 0, length: 65_536, hole: false },
      { offset: 65_536, length: 131_072, hole: true },
      { offset: 196_608, length: 851_968, hole: false },
      { offset: 1_048_576, length: 65_536, hole: true },
      { offset: 1_114_112, length: size - 1_114_112, hole: false },
    ]);
    expect([...dataHoleRuns(calls, fd, 70_000, 80_000)]).toEqual([{ offset: 70_000, length: 10_000, hole: true }]);
    expect([...dataHoleRuns(calls, fd, 60_000, 70_000)]).toEqual([
      { offset: 60_000, length: 5536, hole: false },
      { offset: 65_536, length: 4464, hole: true },
    ]);
  });

  it("at the end of the file reach to its end", async () => {
    await punchHole(calls, fd, 3 * 1024 * 1024, 1024 * 1024, "here");
    expect([...dataHoleRuns(calls, fd, 0, size)].at(-1)).toEqual({
      offset: 3 * 1024 * 1024,
      length: 1024 * 1024,
      hole: true,
    });
  });

  it("become zeros that keep their space, or the file system cannot", async () => {
    const before = fstatSync(fd).blocks;
    const done = await zeroRange(calls, fd, 4096, 1_000_000, "auto");
    expect(byteAt(4096)).toBe(done ? 0 : 7);
    expect(fstatSync(fd).blocks).toBeGreaterThanOrEqual(before);
    expect(byteAt(4095)).toBe(7);
  });

  it("cannot be made through a descriptor for reading, and the error says why", () => {
    const reading = openSync(join(folder, "disk"), "r");
    try {
      expect(() => punchHole(calls, reading, 0, 4096, "here")).toThrow(expect.objectContaining({ code: "EBADF" }));
    } finally {
      closeSync(reading);
    }
  });

  it("cannot be made in the pool either, and the error says why", async () => {
    const reading = openSync(join(folder, "disk"), "r");
    try {
      await expect(punchHole(calls, reading, 0, 4096, "pool")).rejects.toMatchObject({ code: "EBADF" });
    } finally {
      closeSync(reading);
    }
  });

  it("are not seen where the descriptor is no file: everything is data", () => {
    expect([...dataHoleRuns(calls, 9999, 0, 100)]).toEqual([{ offset: 0, length: 100, hole: false }]);
  });
});
