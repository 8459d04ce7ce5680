import { describe, expect, test } from "vitest";
import { isZcowError, type ZcowError } from "../../../../src/base/errors.js";
import { readHeader } from "../../../../src/formats/qcow2/header-read.js";
import type { HeaderMode, HeaderUse } from "../../../../src/formats/qcow2/header-verdict.js";
import { openQcow2 } from "../../../../src/formats/qcow2/open.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { BAD_HEADERS } from "../../../corpus/bad-headers.js";
import { BAD_ZONES, LONGER_EXTENSION } from "../../../corpus/bad-zones.js";
import { plainImage, zonedImage } from "../../../corpus/images.js";

async function attempt(
  bytes: Uint8Array,
  use: HeaderUse,
): Promise<{ error: ZcowError | undefined; findings: string[] }> {
  const findings: string[] = [];
  const onFinding = (finding: ZcowError): unknown => findings.push(finding.code);
  try {
    await readHeader(memoryStorage(bytes), { ...use, onFinding });
    return { error: undefined, findings };
  } catch (error) {
    if (!isZcowError(error)) throw error;
    return { error, findings };
  }
}

function expectRefusal(error: ZcowError | undefined, code: string, says: readonly string[]): void {
  expect(error?.code, error?.message).toBe(code);
  for (const part of says) expect(error?.message).toContain(part);
  expect(error?.data.structure).toBeDefined();
  expect(error?.data.field).toBeDefined();
}

describe.each(BAD_HEADERS.map((bad) => ({ ...bad, name: `${bad.code}: ${bad.what}` })))("$name", (bad) => {
  const image = async (): Promise<Uint8Array> => {
    const bytes = await plainImage(bad.base);
    return bad.spoil(bytes) ?? bytes;
  };

  test("refuses to be opened for writing, naming field and value", async () => {
    const { error } = await attempt(await image(), { writable: true });
    expectRefusal(error, bad.code, bad.says);
  });

  test("does as the case says when read, shown and checked", async () => {
    const bytes = await image();
    const modes: readonly [HeaderMode, boolean][] = [
      ["open", bad.onlyForWriting === true],
      ["info", bad.onlyForWriting === true || bad.infoShows === true],
      ["check", bad.checkReports === true || bad.onlyForWriting === true],
    ];
    for (const [mode, opens] of modes) {
      const { error } = await attempt(bytes, { mode });
      if (opens) expect(error?.message, mode).toBeUndefined();
      else expect(error?.code, mode).toBe(bad.code);
    }
    if (bad.checkReports === true) {
      const { error, findings } = await attempt(bytes, { mode: "check", writable: true });
      expect(error?.message).toBeUndefined();
      expect(findings).toContain(bad.code);
    }
  });
});

describe.each(BAD_ZONES.map((bad) => ({ ...bad, name: `${bad.code}: ${bad.what}` })))("$name", (bad) => {
  test("refuses to be opened, naming field and value", async () => {
    const bytes = await zonedImage(bad.zone);
    const spoiled = bad.spoil(bytes) ?? bytes;
    const error: unknown = await openQcow2(memoryStorage(spoiled)).catch((reason: unknown) => reason);
    if (!isZcowError(error)) throw new Error(`was opened, or failed otherwise: ${String(error)}`);
    expectRefusal(error, bad.code, bad.says);
    for (const [index, reason] of (bad.reasons ?? []).entries()) expect(error.data.reasons?.[index]).toContain(reason);
  });

  test("is told apart from a table that is damaged: the header alone is read", async () => {
    const bytes = await zonedImage(bad.zone);
    const { error, findings } = await attempt(bad.spoil(bytes) ?? bytes, { mode: "check" });
    if (bad.inTable === true) expect(error?.message).toBeUndefined();
    else expect([error?.code, ...findings]).toContain(bad.code);
  });
});

test("every error code of the header and the zoned extension has an image", () => {
  const covered = new Set([...BAD_HEADERS, ...BAD_ZONES].map(({ code }) => code));
  expect([...covered].filter((code) => code.startsWith("QCOW2_")).length).toBeGreaterThan(30);
});

test("a longer zoned extension is the current layout with a tail that is kept", async () => {
  const bytes = await zonedImage();
  const header = await readHeader(memoryStorage(LONGER_EXTENSION(bytes) ?? bytes));
  expect(header.zoned?.layout).toBe("current");
  expect(header.zoned?.tail.length).toBe(20);
});
