import { describe, expect, test } from "vitest";
import { encodeHeader } from "../../../../src/formats/qcow2/header-encode.js";
import { readHeader } from "../../../../src/formats/qcow2/header-read.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { GOOD_HEADERS } from "../../../corpus/good-headers.js";
import { plainImage } from "../../../corpus/images.js";

describe.each(GOOD_HEADERS)("$what", ({ change, base }) => {
  test("is opened, for writing too", async () => {
    const bytes = await plainImage(base);
    const storage = memoryStorage(change(bytes) ?? bytes);
    await expect(readHeader(storage)).resolves.toBeDefined();
    await expect(readHeader(storage, { writable: true })).resolves.toBeDefined();
    await expect(readHeader(storage, { mode: "check", writable: true })).resolves.toBeDefined();
    await expect(readHeader(storage, { mode: "info" })).resolves.toBeDefined();
  });

  test("says the same once it is rewritten", async () => {
    const bytes = await plainImage(base);
    const spoiled = change(bytes) ?? bytes;
    const header = await readHeader(memoryStorage(spoiled));
    const rewritten = spoiled.slice();
    rewritten.set(encodeHeader(header));
    expect(await readHeader(memoryStorage(rewritten))).toEqual(header);
  });
});
