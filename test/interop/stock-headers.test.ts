import { closeSync, openSync, readSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { ErrorCode } from "../../src/base/error-codes.js";
import { isZcowError } from "../../src/base/errors.js";
import type { Qcow2Header } from "../../src/formats/qcow2/header.js";
import { encodeHeader } from "../../src/formats/qcow2/header-encode.js";
import { readHeader } from "../../src/formats/qcow2/header-read.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { openFileStorage } from "../../src/storage/file-storage.js";
import { describeWithStock, qemuImg, runTool, temporaryDirectory } from "../support/stock-tools.js";

interface StockImage {
  readonly what: string;
  /** Arguments of qemu-img, one list a call; `IMG` and `BASE` stand for paths. */
  readonly make: readonly (readonly string[])[];
  readonly says: Partial<Qcow2Header>;
  /** Code that opening for writing gives; undefined: opens. */
  readonly writing?: ErrorCode;
  /** Code that opening for reading gives. */
  readonly reading?: ErrorCode;
}

const create = (options: string, ...more: readonly string[]): readonly string[] => [
  "create",
  "-q",
  "-f",
  "qcow2",
  "-o",
  options,
  ...more,
  "IMG",
  "16M",
];

const IMAGES: readonly StockImage[] = [
  { what: "plain", make: [create("compat=1.1")], says: { version: 3, headerLength: 112, backingFileName: undefined } },
  { what: "version 2", make: [create("compat=0.10")], says: { version: 2, headerLength: 72, refcountOrder: 4 } },
  {
    what: "a backing file, version 3",
    make: [create("backing_file=BASE,backing_fmt=raw")],
    says: { version: 3, backingFormat: "raw" },
  },
  {
    what: "a backing file, version 2: extensions follow at byte 72",
    make: [create("compat=0.10,backing_file=BASE,backing_fmt=raw")],
    says: { version: 2, backingFormat: "raw" },
  },
  {
    what: "an external data file",
    make: [create("data_file=IMG.data,data_file_raw=on")],
    says: { features: { incompatible: 4n, compatible: 0n, autoclear: 2n } },
  },
  {
    what: "zstd compression",
    make: [create("compression_type=zstd")],
    says: { compressionType: 1, features: { incompatible: 8n, compatible: 0n, autoclear: 0n } },
  },
  {
    what: "extended L2 entries",
    make: [create("extended_l2=on")],
    says: { features: { incompatible: 16n, compatible: 0n, autoclear: 0n } },
  },
  {
    what: "LUKS",
    make: [create("encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "--object", "secret,id=s,data=abc")],
    says: { cryptMethod: 2 },
    writing: "PASSPHRASE_REQUIRED",
    reading: "PASSPHRASE_REQUIRED",
  },
  {
    what: "two snapshots",
    make: [create("compat=1.1"), ["snapshot", "-c", "one", "IMG"], ["snapshot", "-c", "two", "IMG"]],
    says: { snapshotCount: 2 },
  },
  {
    what: "two bitmaps",
    make: [create("compat=1.1"), ["bitmap", "--add", "IMG", "one"], ["bitmap", "--add", "IMG", "two"]],
    says: { features: { incompatible: 0n, compatible: 0n, autoclear: 1n } },
  },
  {
    what: "lazy refcounts",
    make: [create("lazy_refcounts=on")],
    says: { features: { incompatible: 0n, compatible: 1n, autoclear: 0n } },
  },
];

async function openingCode(path: string, writable: boolean): Promise<ErrorCode | undefined> {
  const storage = await openFileStorage(path, { writable });
  try {
    const device = await openQcow2(storage, { implicitFiles: "allow" });
    await device.close();
    return undefined;
  } catch (error) {
    if (isZcowError(error)) return error.code;
    throw error;
  } finally {
    await storage.close();
  }
}

function firstCluster(path: string, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const file = openSync(path, "r");
  readSync(file, bytes, 0, Math.min(length, statSync(path).size), 0);
  closeSync(file);
  return bytes;
}

describeWithStock("an image of the stock tool", () => {
  test.each(IMAGES.map((image) => [image.what, image] as const))(
    "with %s is decoded, rewritten byte for byte, and opened or refused",
    async (_what, image) => {
      const folder = temporaryDirectory();
      const [img, base] = [join(folder, "disk-é.qcow2"), join(folder, "base.raw")];
      await runTool("truncate", ["-s", "16M", base]);
      for (const args of image.make) {
        const made = await qemuImg(args.map((argument) => argument.replace("IMG", img).replace("BASE", base)));
        expect(made.stderr).toBe("");
      }
      const storage = await openFileStorage(img, { writable: false });
      const header = await readHeader(storage);
      await storage.close();
      expect(header).toMatchObject(image.says);
      if (image.what.startsWith("a backing file")) expect(header.backingFileName).toBe(base);
      if (image.what === "an external data file") expect(header.dataFileName).toBe(`${img}.data`);
      if (image.what === "two bitmaps") expect(header.bitmaps?.count).toBe(2);
      if (image.writing === "PASSPHRASE_REQUIRED") expect(header.cryptHeader?.length).toBeGreaterThan(500);
      const bytes = encodeHeader(header);
      expect(Buffer.from(bytes).equals(firstCluster(img, bytes.length)), "header rewritten").toBe(true);
      expect(await openingCode(img, true)).toBe(image.writing);
      expect(await openingCode(img, false)).toBe(image.reading);
    },
  );
});
