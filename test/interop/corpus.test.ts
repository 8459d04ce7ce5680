import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { isZcowError, type ZcowError } from "../../src/base/errors.js";
import type { CreateQcow2Options } from "../../src/formats/qcow2/create-options.js";
import { readHeader } from "../../src/formats/qcow2/header-read.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { BAD_HEADERS } from "../corpus/bad-headers.js";
import { GOOD_HEADERS } from "../corpus/good-headers.js";
import { type Change, plainImage } from "../corpus/images.js";
import { describeWithStock, qemuImg, qemuIo, temporaryDirectory } from "../support/stock-tools.js";

/** Opens with qemu-io and does nothing; what it complains of, without its prefix, or "" when it opens. */
async function stockRefusal(path: string, writable: boolean): Promise<string> {
  const result = await qemuIo([...(writable ? [] : ["-r"]), "-f", "qcow2", "-c", "length", path]);
  const prefix = `qemu-io: can't open device ${path}: `;
  return result.stderr.startsWith(prefix) ? result.stderr.slice(prefix.length).trimEnd() : "";
}

async function ourRefusal(bytes: Uint8Array, writable: boolean): Promise<ZcowError | undefined> {
  try {
    await readHeader(memoryStorage(bytes), { writable });
    return undefined;
  } catch (error) {
    if (isZcowError(error)) return error;
    throw error;
  }
}

async function makeFile(
  change: Change,
  base: CreateQcow2Options | undefined,
): Promise<{ path: string; bytes: Uint8Array }> {
  const good = await plainImage(base);
  const bytes = change(good) ?? good;
  const path = join(temporaryDirectory(), "image.qcow2");
  writeFileSync(path, bytes);
  return { path, bytes };
}

describeWithStock("bad headers, beside stock qemu-io", () => {
  test.each(BAD_HEADERS.map((bad) => [`${bad.code}: ${bad.what}`, bad] as const))("%s", async (_name, bad) => {
    const { path, bytes } = await makeFile(bad.spoil, bad.base);
    for (const writable of [false, true]) {
      const ours = await ourRefusal(bytes, writable);
      const stock = await stockRefusal(path, writable);
      if (bad.stockOpens !== undefined) expect(ours?.stockText ?? "", "a text the stock tool does not print").toBe("");
      else expect(ours?.stockText ?? "").toBe(stock);
    }
  });
});

describeWithStock("good but unusual headers, beside stock qemu-io", () => {
  test.each(GOOD_HEADERS.map((good) => [good.what, good] as const))("%s", async (_name, good) => {
    const { path } = await makeFile(good.change, good.base);
    expect(await stockRefusal(path, false)).toBe("");
    expect((await qemuImg(["check", "-f", "qcow2", path])).stderr).not.toContain("Could not open");
  });
});
