import * as fs from "node:fs";
import { afterEach, describe, expect, it } from "vitest";
import { type FileStorageOptions, openFileStorage } from "../../../src/storage/file-storage.js";
import type { Storage } from "../../../src/storage/storage.js";
import { temporaryFolder } from "../../support/temporary-folder.js";

// The kernel's locks need the native helper; without it a process must at least keep itself in order.
process.env["ZCOW_NO_NATIVE"] = "1";

const path = temporaryFolder();
const opened: Storage[] = [];

afterEach(async () => {
  for (const storage of opened.splice(0)) await storage.close();
});

async function open(name: string, options?: FileStorageOptions): Promise<Storage> {
  const storage = await openFileStorage(path(name), options);
  opened.push(storage);
  return storage;
}

describe("without the locks of the kernel, in one process", () => {
  it("a second writer is kept out, by whatever name, and cannot empty the file", async () => {
    fs.writeFileSync(path("locked"), "abc");
    fs.symlinkSync(path("locked"), path("alias"));
    fs.linkSync(path("locked"), path("second-name"));
    const holder = await open("locked", { writable: true });
    for (const name of ["locked", "alias", "second-name"]) {
      await expect(openFileStorage(path(name), { writable: true, truncate: true })).rejects.toMatchObject({
        code: "LOCKED",
        stockText: `Failed to get "write" lock\nIs another process using the image [${path(name)}]?`,
      });
    }
    expect(fs.readFileSync(path("locked"), "latin1")).toBe("abc");
    await holder.close();
    await open("locked", { writable: true });
  });

  it("readers are kept out unless they share by force", async () => {
    fs.writeFileSync(path("read"), "abc");
    await open("read", { writable: true });
    await expect(openFileStorage(path("read"))).rejects.toMatchObject({ code: "LOCKED" });
    await expect(openFileStorage(path("read"), { lock: { use: "inspect" } })).rejects.toMatchObject({ code: "LOCKED" });
    await open("read", { forceShare: true });
    await open("read", { lock: false });
  });

  it("readers share, and keep a writer out until the last has gone", async () => {
    fs.writeFileSync(path("many"), "abc");
    const first = await open("many");
    const second = await open("many");
    await open("many", { lock: { use: "inspect" } });
    await first.close();
    await first.close();
    await expect(openFileStorage(path("many"), { writable: true })).rejects.toMatchObject({ code: "LOCKED" });
    await second.close();
    await open("many", { writable: true });
  });

  it("an opening that fails leaves no lock behind", async () => {
    fs.writeFileSync(path("failed"), "abc");
    await expect(openFileStorage(path("failed"), { writable: true, lock: { required: true } })).rejects.toMatchObject({
      code: "STORAGE_UNSUPPORTED",
    });
    await open("failed", { writable: true });
  });
});
