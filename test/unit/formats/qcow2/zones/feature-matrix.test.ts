import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { createQcow2 } from "../../../../../src/formats/qcow2/create.js";
import type { CreateQcow2Options } from "../../../../../src/formats/qcow2/create-options.js";
import { type OpenQcow2Options, openQcow2 } from "../../../../../src/formats/qcow2/open.js";
import { openRaw } from "../../../../../src/formats/raw/device.js";
import {
  amendImage,
  applySnapshot,
  changeBitmap,
  compactImage,
  createSnapshot,
  isZcowError,
  resizeImage,
} from "../../../../../src/index.js";
import { borrowedStorage } from "../../../../../src/storage/borrowed-storage.js";
import { type MemoryStorage, memoryStorage } from "../../../../../src/storage/memory-storage.js";

/** docs/zoned-features.md says what works, and names the test that shows it, and what is refused, and names the error. */

const KIB = 1024;
const qcow2 = { format: "qcow2" } as const;
const ZONE = 64 * KIB;
const SIZE = 4 * ZONE;
const PAGE = new URL("../../../../../docs/zoned-features.md", import.meta.url);
const ROOT = new URL("../../../../../", import.meta.url);

const zone = { mode: "host-managed", size: ZONE, conventionalZones: 1 } as const;

async function zonedImage(more: CreateQcow2Options = {}): Promise<MemoryStorage> {
  const storage = memoryStorage();
  await createQcow2(storage, { size: SIZE, clusterSize: 4 * KIB, zone, ...more }, { dataFile: memoryStorage() });
  return storage;
}

async function compressedWrite(more: CreateQcow2Options, options: OpenQcow2Options): Promise<void> {
  const device = await openQcow2(await zonedImage(more), options);
  await device.writeCompressed(ZONE, new Uint8Array(4 * KIB));
}

const passphrase = "matrix";

/** What each row of the table of refusals tries. */
const ATTEMPTS: Readonly<Record<string, () => Promise<unknown>>> = {
  "version 2, `create -o compat=0.10`": () => zonedImage({ compat: "0.10" }),
  "version 2, `amend -o compat=0.10`": async () => amendImage(await zonedImage(), { ...qcow2, compat: "0.10" }),
  "resize, larger": async () => resizeImage(await zonedImage(), { ...qcow2, size: SIZE + ZONE }),
  "resize, smaller": async () => resizeImage(await zonedImage(), { ...qcow2, size: SIZE - ZONE, shrink: true }),
  preallocation: () => zonedImage({ preallocation: "metadata" }),
  "discard in a sequential zone": async () => (await openQcow2(await zonedImage())).discard(ZONE, 4 * KIB),
  "compressed write, encrypted": () =>
    compressedWrite({ encrypt: { format: "luks", passphrase, iterTime: 1 } }, { passphrase }),
  "compressed write, external data file": () =>
    compressedWrite({ dataFile: "data" }, { dataFile: memoryStorage(new Uint8Array(SIZE)) }),
  "snapshot with an external data file": async () =>
    createSnapshot(await zonedImage({ dataFile: "data" }), { ...qcow2, name: "one" }),
  "compact with an external data file": async () => compactImage(await zonedImage({ dataFile: "data" }), qcow2),
  "applying a snapshot with bitmaps": async () => {
    const storage = await zonedImage();
    await createSnapshot(storage, { ...qcow2, name: "one" });
    await changeBitmap(storage, { ...qcow2, name: "marks", actions: [{ do: "add" }] });
    return applySnapshot(storage, { ...qcow2, snapshot: "one" });
  },
  "writing to layout `seed`": async () => {
    const device = await openQcow2(await zonedImage({ zone: { ...zone, layout: "seed" } }));
    await device.write(0, new Uint8Array(512));
  },
};

/** The rows of the table under a heading, cell by cell. */
function tableUnder(heading: string): string[][] {
  const text = readFileSync(PAGE, "utf8");
  const section = text.slice(text.indexOf(`## ${heading}`)).split("\n## ")[0] ?? "";
  const lines = section.split("\n").filter((line) => line.startsWith("| "));
  return lines.slice(2).map((line) => line.slice(2, -2).split(" | "));
}

const WORKS = tableUnder("What works");
const REFUSED = tableUnder("What is refused");

describe("the page about zoned images and other features", () => {
  it.each(WORKS)("names a test that exists: %s", (_feature, _how, shown = "") => {
    const [, path = "", name = ""] = /^`([^`]+)`: (.+)$/.exec(shown) ?? [];
    expect(readFileSync(new URL(path, ROOT), "utf8")).toContain(JSON.stringify(name));
  });

  it.each(REFUSED)("names the error that is given: %s, %s", async (feature, _image, error = "") => {
    const attempt = ATTEMPTS[feature];
    expect(attempt, "an attempt at it").toBeDefined();
    const code = await attempt?.().then(
      () => "nothing",
      (thrown: unknown) => (isZcowError(thrown) ? thrown.code : String(thrown)),
    );
    expect(`\`${code}\``).toBe(error);
  });

  it("lists every refusal that is tried", () => {
    expect(new Set(REFUSED.map(([feature]) => feature))).toEqual(new Set(Object.keys(ATTEMPTS)));
  });
});

describe("a zoned image over a plain one", () => {
  it("shows a plain backing image in conventional zones only", async () => {
    const storage = await zonedImage({ backingFile: "behind", backingFormat: "raw" });
    const behind = openRaw(memoryStorage(new Uint8Array(SIZE).fill(7)), { readOnly: true });
    const device = await openQcow2(borrowedStorage(storage), { backing: behind });
    const bytes = new Uint8Array(SIZE);
    await device.read(0, bytes);
    expect(bytes.subarray(0, ZONE).every((byte) => byte === 7)).toBe(true);
    expect(bytes.subarray(ZONE).every((byte) => byte === 0)).toBe(true);
    await device.close();
  });
});
