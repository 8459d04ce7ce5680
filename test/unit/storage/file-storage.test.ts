import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { Warning } from "../../../src/base/errors.js";
import { nativeCalls } from "../../../src/host/native.js";
import { type FileStorageOptions, openFileStorage } from "../../../src/storage/file-storage.js";
import type { Storage } from "../../../src/storage/storage.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

const path = temporaryFolder();
const native = nativeCalls() !== undefined;
const opened: Storage[] = [];

async function open(name: string, options?: FileStorageOptions): Promise<Storage> {
  const storage = await openFileStorage(path(name), options);
  opened.push(storage);
  return storage;
}

afterEach(async () => {
  await Promise.all(opened.splice(0).map((storage) => storage.close()));
});

describe("opening a file", () => {
  it("opens for reading unless told otherwise", async () => {
    fs.writeFileSync(path("plain"), "abc");
    const storage = await open("plain");
    expect(storage.size()).toBe(3);
    expect(storage.capabilities).toMatchObject({ writable: false, resizable: false, discard: false });
    for (const refused of [
      storage.write(0, new Uint8Array(1)),
      storage.writeZeroes(0, 1),
      storage.discard(0, 1),
      storage.truncate(0),
    ]) {
      await expect(refused).rejects.toMatchObject({ code: "READ_ONLY" });
    }
    await storage.flush();
    expect(fs.readFileSync(path("plain"), "latin1")).toBe("abc");
  });

  it("says which file is missing, as stock does", async () => {
    await expect(openFileStorage("/nowhere/disk")).rejects.toMatchObject({
      code: "NOT_FOUND",
      stockText: "Could not open '/nowhere/disk': No such file or directory",
      data: { path: "/nowhere/disk", errno: "ENOENT" },
    });
    await expect(openFileStorage("/nowhere/disk", { writable: true, create: true })).rejects.toMatchObject({
      code: "NOT_FOUND",
      stockText: "Could not create '/nowhere/disk': No such file or directory",
    });
  });

  it("refuses what is no disk", async () => {
    const folder = path("");
    await expect(openFileStorage(folder)).rejects.toMatchObject({
      code: "NOT_A_DISK",
      stockText: `'file' driver requires '${folder}' to be a regular file`,
    });
    await expect(openFileStorage("/dev/null")).rejects.toMatchObject({ code: "NOT_A_DISK" });
  });

  it.skipIf(process.platform === "win32")("refuses a pipe without waiting for its other end", async () => {
    execFileSync("mkfifo", [path("pipe")]);
    await expect(openFileStorage(path("pipe"))).rejects.toMatchObject({ code: "NOT_A_DISK" });
  });

  it("makes a file only when told, and only anew when told", async () => {
    await expect(openFileStorage(path("new"), { writable: true })).rejects.toMatchObject({ code: "NOT_FOUND" });
    const storage = await open("new", { writable: true, create: true, exclusive: true });
    expect(storage.size()).toBe(0);
    await storage.close();
    await expect(openFileStorage(path("new"), { writable: true, create: true, exclusive: true })).rejects.toMatchObject(
      { code: "ALREADY_EXISTS", errno: "EEXIST" },
    );
    await open("new", { writable: true, create: true });
  });

  it("empties a file when told", async () => {
    fs.writeFileSync(path("full"), "abc");
    const storage = await open("full", { writable: true, truncate: true });
    expect(storage.size()).toBe(0);
    expect(fs.statSync(path("full")).size).toBe(0);
  });

  it.each(["create", "truncate"] as const)("refuses %s for reading", async (option) => {
    await expect(openFileStorage(path("x"), { [option]: true })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      data: { option },
    });
  });

  it("refuses to share a file by force and write it", async () => {
    await expect(openFileStorage(path("x"), { writable: true, forceShare: true })).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      stockText: "force-share=on can only be used with read-only images",
    });
  });

  it("does not leak descriptors when it refuses", async () => {
    if (process.platform !== "linux") return;
    fs.writeFileSync(path("leak"), "abc");
    const count = (): number => fs.readdirSync("/proc/self/fd").length;
    const holder = native ? await open("leak", { writable: true }) : undefined;
    const before = count();
    for (let round = 0; round < 5; round++) {
      await openFileStorage(path("")).catch(() => undefined);
      if (holder !== undefined) await openFileStorage(path("leak"), { writable: true }).catch(() => undefined);
    }
    expect(count()).toBe(before);
  });
});

describe.skipIf(!native)("locks of a file storage", () => {
  it("keep a second writer out and do not let it empty the file", async () => {
    fs.writeFileSync(path("locked"), "abc");
    const holder = await open("locked", { writable: true });
    await expect(openFileStorage(path("locked"), { writable: true, truncate: true })).rejects.toMatchObject({
      code: "LOCKED",
      stockText: `Failed to get "write" lock\nIs another process using the image [${path("locked")}]?`,
    });
    expect(fs.readFileSync(path("locked"), "latin1")).toBe("abc");
    await holder.close();
    await open("locked", { writable: true });
  });

  it("keep readers out unless they share by force", async () => {
    fs.writeFileSync(path("read"), "abc");
    await open("read", { writable: true });
    await expect(openFileStorage(path("read"))).rejects.toMatchObject({ code: "LOCKED" });
    await expect(openFileStorage(path("read"), { lock: { use: "inspect" } })).rejects.toMatchObject({ code: "LOCKED" });
    await open("read", { forceShare: true });
    await open("read", { lock: false });
  });

  it("let readers share and keep a writer out", async () => {
    fs.writeFileSync(path("many"), "abc");
    await open("many");
    await open("many");
    await expect(openFileStorage(path("many"), { writable: true })).rejects.toMatchObject({ code: "LOCKED" });
  });

  it("leave none behind when it only inspects", async () => {
    fs.writeFileSync(path("inspect"), "abc");
    await open("inspect", { lock: { use: "inspect" } });
    await open("inspect", { writable: true });
  });
});

describe("reading a file that others change", () => {
  it("sees bytes that were added since it was opened", async () => {
    fs.writeFileSync(path("growing"), "abc");
    const storage = await open("growing");
    fs.appendFileSync(path("growing"), "def");
    const bytes = new Uint8Array(8);
    await storage.read(0, bytes);
    expect(Buffer.from(bytes).toString("latin1")).toBe("abcdef\0\0");
    expect(storage.size()).toBe(6);
  });

  it("sees zeros where bytes were cut off", async () => {
    fs.writeFileSync(path("shrinking"), "abcdef");
    const storage = await open("shrinking");
    fs.truncateSync(path("shrinking"), 2);
    const bytes = new Uint8Array(6).fill(9);
    await storage.read(0, bytes);
    expect([...bytes]).toEqual([97, 98, 0, 0, 0, 0]);
  });
});

describe("zeros that make a file longer", () => {
  it("do not cut off a write further on that is under way", async () => {
    const storage = await open("race", { writable: true, create: true, io: "pool" });
    const far = new Uint8Array(1_000_000).fill(5);
    const write = storage.write(10_000_000, far);
    const zeros = storage.writeZeroes(5_000_000, 1_000_000);
    await Promise.all([write, zeros]);
    expect(storage.size()).toBe(11_000_000);
    const found = new Uint8Array(1_000_000);
    await storage.read(10_000_000, found);
    expect(Buffer.compare(found, far)).toBe(0);
  });

  it("are written in long runs where the system cannot make them", async () => {
    fs.writeFileSync(path("long"), new Uint8Array(5_000_000).fill(1));
    for (const io of ["auto", "sync", "pool"] as const) {
      const storage = await open("long", { writable: true, io, lock: false });
      await storage.writeZeroes(100, 4_000_000);
      const found = new Uint8Array(4_000_002);
      await storage.read(99, found);
      expect([found[0], found.at(-1), found.subarray(1, -1).every((byte) => byte === 0)]).toEqual([1, 1, true]);
      await storage.write(100, new Uint8Array(4_000_000).fill(1));
    }
  });
});

describe("locks that cannot be had", () => {
  it("are a warning, or an error when they are required", () => {
    const source = `
      import { openFileStorage } from ${JSON.stringify(join(process.cwd(), "src/storage/file-storage.ts"))};
      const warnings = [];
      const path = process.argv[1];
      const storage = await openFileStorage(path, { writable: true, onWarning: (w) => warnings.push(w.code) });
      const holes = storage.capabilities.holes;
      await storage.close();
      const code = await openFileStorage(path, { writable: true, lock: { required: true } }).catch((e) => e.code);
      console.log(JSON.stringify({ warnings, holes, code }));`;
    fs.writeFileSync(path("unlocked"), "abc");
    const bundle = execFileSync(
      "node_modules/.bin/esbuild",
      ["--bundle", "--platform=node", "--format=esm", "--external:koffi", "--loader=ts"],
      { input: source },
    );
    const printed = execFileSync(process.execPath, ["--input-type=module", "-e", bundle.toString(), path("unlocked")], {
      env: { ...process.env, ZCOW_NO_NATIVE: "1" },
    });
    const expected: { warnings: Warning["code"][]; holes: boolean; code: string } = {
      warnings: ["LOCKS_UNAVAILABLE"],
      holes: false,
      code: "STORAGE_UNSUPPORTED",
    };
    expect(JSON.parse(printed.toString())).toEqual(expected);
  });
});
