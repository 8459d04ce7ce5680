import { execFile } from "node:child_process";
import { mkdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, describe, expect, it } from "vitest";
import { openRaw } from "../../../../src/formats/raw/device.js";
import { resizeImage } from "../../../../src/jobs/resize.js";
import { openNbdStorage } from "../../../../src/storage/nbd/nbd-storage.js";
import { openStorage } from "../../../../src/storage/open-storage.js";
import { Relay, startNbdService, unixUri } from "../../../support/nbd-service.js";
import { temporaryFolder } from "../../../support/temporary-folder.js";

const MIB = 1024 * 1024;
const run = promisify(execFile);
const path = temporaryFolder();
let number = 0;
const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
});

async function served(resizable: boolean) {
  number += 1;
  const folder = path(String(number));
  mkdirSync(folder);
  const file = join(folder, "disk.raw");
  writeFileSync(file, new Uint8Array(MIB));
  const device = openRaw(await openStorage(file, { writable: true }));
  const socket = join(folder, "s");
  const service = await startNbdService(socket, device, { export: { resizable } });
  ends.push(() => service.close());
  return { folder, file, socket, device };
}

describe("an export that can be resized", () => {
  it("grows by truncate, by resize, and by writes past its end", async () => {
    const { file, socket } = await served(true);
    const storage = await openNbdStorage(unixUri(socket), { writable: true });
    expect(storage.capabilities.resizable).toBe(true);
    await storage.truncate(2 * MIB);
    expect([storage.size(), statSync(file).size]).toEqual([2 * MIB, 2 * MIB]);
    await resizeImage(storage, { format: "raw", size: 3 * MIB });
    await storage.write(4 * MIB - 3, Buffer.from("end"));
    const back = new Uint8Array(3);
    await storage.read(4 * MIB - 3, back);
    expect([Buffer.from(back).toString(), statSync(file).size]).toEqual(["end", 4 * MIB]);
    await expect(storage.truncate(MIB)).rejects.toMatchObject({ code: "STORAGE_UNSUPPORTED" });
    await storage.close();
  });

  it("grows over a connection that breaks, and keeps the writes behind its old end", async () => {
    const { folder, file, socket } = await served(true);
    const relay = await Relay.listen(join(folder, "r"), socket);
    ends.push(() => relay.close());
    const storage = await openNbdStorage(unixUri(join(folder, "r")), { writable: true });
    for (let round = 2; round < 12; round++) {
      const grown = storage.write(round * MIB, new Uint8Array(512).fill(round));
      relay.cutAll();
      await grown;
    }
    await storage.flush();
    expect(statSync(file).size).toBe(11 * MIB + 512);
    await storage.close();
  });

  it("looks like any other to stock clients", async () => {
    const { socket } = await served(true);
    const info = JSON.parse((await run("qemu-img", ["info", "--output=json", "-f", "raw", unixUri(socket)])).stdout);
    expect(info["virtual-size"]).toBe(MIB);
  });
});

it("refuses to grow where the server does not offer it", async () => {
  const { socket } = await served(false);
  const storage = await openNbdStorage(unixUri(socket), { writable: true });
  expect(storage.capabilities.resizable).toBe(false);
  await expect(storage.truncate(2 * MIB)).rejects.toMatchObject({ code: "STORAGE_UNSUPPORTED" });
  await storage.close();
});
