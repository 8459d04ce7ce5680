import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { MiB } from "../../../src/base/units.js";
import { openImage } from "../../../src/formats/open-image.js";
import { readBitmap } from "../../../src/jobs/bitmap.js";
import { checkImage } from "../../../src/jobs/check.js";
import { describeImage } from "../../../src/jobs/info.js";
import { BAD_FEATURES, type BadFeature, BadFile } from "../../corpus/bad-features.js";
import { corpusFile, GOOD_FEATURES, type GoodFeature } from "../../corpus/good-features.js";

let folder = "";
const before = process.cwd();

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "zcow-corpus-"));
  // Names of data files start in the working directory.
  process.chdir(folder);
});
afterAll(() => {
  process.chdir(before);
  rmSync(folder, { recursive: true, force: true });
});

/** Puts the files of an image into the folder; `main` in place of the image itself. Returns its path. */
function unpack({ files }: GoodFeature, main = corpusFile(files[0])): string {
  for (const file of files) writeFileSync(join(folder, file), file === files[0] ? main : corpusFile(file));
  return join(folder, files[0]);
}

async function contents(path: string, { format, passphrase }: GoodFeature, snapshot?: string): Promise<Uint8Array> {
  const disk = await openImage(path, {
    format,
    readOnly: true,
    implicitFiles: "allow",
    passphrase,
    ...(snapshot === undefined ? {} : { snapshot }),
  });
  await using _ = disk;
  const bytes = new Uint8Array(disk.size);
  for (let at = 0; at < bytes.length; at += MiB) await disk.read(at, bytes.subarray(at, at + MiB));
  return bytes;
}

describe("a good image of every feature and format", () => {
  test.each(GOOD_FEATURES.map((good) => [good.name, good] as const))(
    "%s reads as the stock tool reads it",
    async (_name, good) => {
      const path = unpack(good);
      const { virtualSize, format } = await describeImage(path, { format: "probe", implicitFiles: "allow" });
      // A fixed VHD has no mark at its start.
      if (good.name !== "vpc-fixed")
        expect({ virtualSize, format }).toEqual({ virtualSize: good.size, format: good.format });
      const bytes = await contents(path, good);
      expect(createHash("sha256").update(bytes).digest("hex")).toBe(good.sha256);
      if (good.format !== "qcow2") return;
      expect(await checkImage(path, { format: "qcow2" })).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
    },
  );
});

describe("a bad image of every feature and format", () => {
  const act = async (path: string, good: GoodFeature, when: BadFeature["when"]): Promise<unknown> => {
    if (when === "bitmap") return readBitmap(path, { format: "qcow2", name: "fine" });
    if (when === "snapshot") return contents(path, good, "1");
    if (when === "read") return contents(path, good);
    const disk = await openImage(path, {
      format: good.format,
      readOnly: true,
      implicitFiles: "allow",
      passphrase: good.passphrase,
    });
    return disk.close();
  };

  test.each(BAD_FEATURES.map((bad) => [`${bad.image}: ${bad.what}: ${bad.code}`, bad] as const))(
    "%s",
    async (_name, bad) => {
      const good = GOOD_FEATURES.find(({ name }) => name === bad.image) ?? expect.unreachable(`no image ${bad.image}`);
      const file = new BadFile(corpusFile(good.files[0]));
      const path = unpack(good, bad.spoil(file) ?? file.bytes);
      await expect(act(path, good, bad.when)).rejects.toMatchObject({ code: bad.code });
    },
  );

  test("every image of the good corpus has its bad ones", () => {
    const features = new Set(GOOD_FEATURES.map(({ feature }) => feature));
    const covered = BAD_FEATURES.map(({ image }) => GOOD_FEATURES.find(({ name }) => name === image)?.feature);
    // Those of plain and zoned headers: bad-headers.ts, bad-zones.ts.
    expect([...features].filter((feature) => feature !== "plain" && !covered.includes(feature))).toEqual([]);
  });
});
