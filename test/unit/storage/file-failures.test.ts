import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { openFileStorage } from "../../../src/storage/file-storage.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

/** What the next calls of node:fs do in place of their work; by name. */
const plan = vi.hoisted(() => new Map<string, (...values: unknown[]) => unknown>());

// Module mocks are hoisted above the imports.
vi.mock("node:fs", async (original) => {
  const real: Record<string, unknown> = await original();
  const names = ["read", "readSync", "write", "writeSync", "fdatasync", "fdatasyncSync"];
  const replaced = names.map((name) => [
    name,
    (...values: unknown[]) => (plan.get(name) ?? (real[name] as (...values: unknown[]) => unknown))(...values),
  ]);
  return { ...real, ...Object.fromEntries(replaced) };
});

// The native helper would make these calls in place of node:fs.
process.env["ZCOW_NO_NATIVE"] = "1";

const path = temporaryFolder();

afterEach(() => {
  plan.clear();
});

function systemError(code: string): Error {
  return Object.assign(new Error(code), { code });
}

/** A call with a callback that fails. */
function failsLater(code: string): (...values: unknown[]) => void {
  return (...values) => (values.at(-1) as (error: Error) => void)(systemError(code));
}

/** A call with a callback that moves one byte at a time. */
function movesOne(real: (...values: never[]) => unknown): (...values: unknown[]) => unknown {
  return (fd, bytes, from, _length, ...rest) =>
    (real as (...values: unknown[]) => unknown)(fd, bytes, from, 1, ...rest);
}

describe("a failed call of the operating system", () => {
  it("names the file, the place, the length and the reason", async () => {
    const storage = await openFileStorage(path("full"), { writable: true, create: true, io: "pool" });
    plan.set("write", failsLater("ENOSPC"));
    await expect(storage.write(4096, new Uint8Array(512))).rejects.toMatchObject({
      code: "NO_SPACE",
      errno: "ENOSPC",
      message: `cannot write 512 bytes at offset 4096 of ${path("full")}: No space left on device (ENOSPC)`,
      data: { offset: 4096, length: 512, path: path("full"), errno: "ENOSPC" },
    });
    expect(storage.size()).toBe(0);
    await storage.close();
  });

  it.each([
    ["EIO", "IO_ERROR"],
    ["EFBIG", "FILE_TOO_LARGE"],
    ["EDQUOT", "NO_SPACE"],
    ["ENXIO", "IO_ERROR"],
  ])("with %s is %s, on this thread too", async (errno, code) => {
    const storage = await openFileStorage(path("codes"), { writable: true, create: true, io: "sync" });
    plan.set("writeSync", () => {
      throw systemError(errno);
    });
    await expect(storage.write(0, new Uint8Array(1))).rejects.toMatchObject({ code, errno });
    plan.set("readSync", () => {
      throw systemError(errno);
    });
    plan.delete("writeSync");
    await storage.write(0, new Uint8Array(1));
    await expect(storage.read(0, new Uint8Array(1))).rejects.toMatchObject({ code, errno });
    await storage.close();
  });

  it("knows how long the file became by the part of a write that was done", async () => {
    const storage = await openFileStorage(path("part"), { writable: true, create: true, io: "sync" });
    const real = fs.writevSync;
    plan.set("writeSync", (fd, bytes, from, _length, at) => {
      if (from !== 0) throw systemError("ENOSPC");
      return real(fd as number, [(bytes as Uint8Array).subarray(0, 100)], at as number);
    });
    await expect(storage.write(0, new Uint8Array(512))).rejects.toMatchObject({ code: "NO_SPACE" });
    expect(storage.size()).toBe(100);
    await storage.close();
  });

  it("of flush is never met where nothing is to be flushed", async () => {
    for (const io of ["sync", "pool"] as const) {
      const storage = await openFileStorage(path("not flushed"), { writable: true, create: true, io, noFlush: true });
      plan.set("fdatasync", failsLater("EIO"));
      plan.set("fdatasyncSync", () => {
        throw systemError("EIO");
      });
      await storage.write(0, new Uint8Array(512));
      expect(await storage.flush()).toBeUndefined();
      plan.clear();
      await storage.close();
    }
  });

  it("of flush stays: what it lost is not made good by flushing again", async () => {
    for (const io of ["auto", "sync"] as const) {
      const storage = await openFileStorage(path("lost"), { writable: true, create: true, io });
      plan.set("fdatasync", failsLater("EIO"));
      plan.set("fdatasyncSync", () => {
        throw systemError("EIO");
      });
      await expect(storage.flush()).rejects.toMatchObject({ code: "IO_ERROR", errno: "EIO" });
      plan.clear();
      await expect(storage.flush()).rejects.toMatchObject({ code: "IO_ERROR", errno: "EIO" });
      await storage.close();
    }
  });

  it("is not hidden by a write that stores nothing and gives no reason", async () => {
    const storage = await openFileStorage(path("nothing"), { writable: true, create: true, io: "sync" });
    plan.set("writeSync", () => 0);
    await expect(storage.write(0, new Uint8Array(5))).rejects.toMatchObject({ code: "IO_ERROR" });
    await storage.close();
  });
});

describe("short transfers", () => {
  it.each(["sync", "pool", "auto"] as const)("are continued, io %s", async (io) => {
    const real = await vi.importActual<typeof fs>("node:fs");
    const storage = await openFileStorage(path(`short-${io}`), { writable: true, create: true, io });
    for (const name of ["read", "readSync", "write", "writeSync"] as const) plan.set(name, movesOne(real[name]));
    const bytes = Uint8Array.from({ length: 50 }, (_, index) => index + 1);
    await storage.write(7, bytes);
    const found = new Uint8Array(60).fill(9);
    await storage.read(5, found);
    expect(found).toEqual(Uint8Array.of(0, 0, ...bytes, ...new Uint8Array(8)));
    await storage.close();
  });
});

describe("reads that turn slow", () => {
  it("go to the thread pool, and come back when the storage is fast again", async () => {
    const real = await vi.importActual<typeof fs>("node:fs");
    fs.writeFileSync(path("slow"), new Uint8Array(4096).fill(3));
    const storage = await openFileStorage(path("slow"), { lock: false });
    let slow = true;
    plan.set("readSync", (...values) => {
      const until = performance.now() + (slow ? 2 : 0);
      while (performance.now() < until);
      return (real.readSync as (...values: unknown[]) => number)(...values);
    });
    let waited = 0;
    const buffer = new Uint8Array(512);
    const read = async (): Promise<void> => {
      const wait = storage.read(0, buffer);
      if (wait === undefined) return;
      waited++;
      await wait;
    };
    for (let count = 0; count < 100; count++) await read();
    expect(waited).toBeGreaterThan(50);
    expect(buffer.every((byte) => byte === 3)).toBe(true);
    slow = false;
    for (let count = 0; count < 3000; count++) await read();
    waited = 0;
    for (let count = 0; count < 20; count++) await read();
    expect(waited).toBeLessThan(20);
    await storage.close();
  });
});

describe("limits of the host", () => {
  it.skipIf(process.platform !== "linux")("on the size of a file are FILE_TOO_LARGE", () => {
    const source = `
      import { openFileStorage } from ${JSON.stringify(join(process.cwd(), "src/storage/file-storage.ts"))};
      process.on("SIGXFSZ", () => undefined);
      const storage = await openFileStorage(process.argv.at(-1), { writable: true, create: true });
      const codes = [];
      const note = (error) => codes.push(error.code, error.errno);
      await storage.write(0, new Uint8Array(1000000)).catch(note);
      await storage.truncate(1000000).catch(note);
      codes.push(storage.size());
      await storage.close();
      console.log(JSON.stringify(codes));`;
    const bundle = execFileSync(
      "node_modules/.bin/esbuild",
      ["--bundle", "--platform=node", "--format=esm", "--external:koffi", "--loader=ts"],
      { input: source },
    );
    fs.writeFileSync(path("limited.mjs"), bundle);
    const printed = execFileSync("sh", [
      "-c",
      'ulimit -f 100; exec "$0" "$1" "$2"',
      process.execPath,
      path("limited.mjs"),
      path("limited"),
    ]);
    expect(JSON.parse(printed.toString())).toEqual(["FILE_TOO_LARGE", "EFBIG", "FILE_TOO_LARGE", "EFBIG", 51_200]);
  });
});
