import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { checkQcow2 } from "../../src/formats/qcow2/check/check.js";
import { compactQcow2 } from "../../src/formats/qcow2/compact/compact.js";
import { isZcowError } from "../../src/index.js";
import { faultStorage } from "../../src/storage/fault-storage.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { recordingStorage } from "../../src/storage/recording-storage.js";
import {
  COMPRESSED_GEOMETRIES,
  CRASH_PASSPHRASE,
  type CrashGeometry,
  ENCRYPTED_GEOMETRIES,
  EXTENDED_GEOMETRIES,
  PLAIN_GEOMETRIES,
  ZONED_GEOMETRIES,
} from "../support/crash-geometries.js";
import { CRASH_KINDS, crashedFile } from "../support/crash-images.js";
import { fragmentedImage, imageContents } from "../support/fragmented-image.js";
import { JitteryStorage } from "../support/jittery-storage.js";
import { Random, seedFromEnvironment } from "../support/random.js";
import { hasStockTools, qemuImg, temporaryDirectory } from "../support/stock-tools.js";

const LUKS: CrashGeometry = {
  name: "LUKS",
  options: {
    size: 256 * 1024,
    clusterSize: 4096,
    encrypt: { format: "luks", passphrase: CRASH_PASSPHRASE, iterTime: 10 },
  },
};

/** Small ones of every kind: what counts here are the kinds of references, not how much of each there is. */
const GEOMETRIES = [
  ...[...PLAIN_GEOMETRIES, ...COMPRESSED_GEOMETRIES, ...ENCRYPTED_GEOMETRIES, ...ZONED_GEOMETRIES].filter(
    ({ prefill, options: { clusterSize = 65_536 } }) => prefill === undefined && clusterSize < 65_536,
  ),
  ...EXTENDED_GEOMETRIES.slice(0, 1),
  LUKS,
];

const options = { passphrase: CRASH_PASSPHRASE };

async function expectOnlyLeaks(file: Uint8Array, where: string): Promise<void> {
  const { corruptions, checkErrors, failure, findings } = await checkQcow2(memoryStorage(file));
  const messages = findings.filter(({ severity }) => severity !== "leak").map(({ message }) => message);
  expect({ corruptions, checkErrors, failure, messages }, where).toEqual({
    corruptions: 0,
    checkErrors: 0,
    failure: undefined,
    messages: [],
  });
}

describe("a compaction", () => {
  it.each(GEOMETRIES)("keeps the data and leaves leaks at worst when power fails: $name", async (geometry) => {
    const first = seedFromEnvironment(1);
    for (let seed = first; seed < first + 1; seed++) {
      const random = new Random(seed);
      const image = await fragmentedImage(geometry, random);
      const initial = image.bytes();
      const contents = await imageContents(image);
      const recorder = recordingStorage(new JitteryStorage(image, random), image);
      const result = await compactQcow2(recorder, options);
      await expectOnlyLeaks(image.bytes(), `seed ${seed}, after the compaction`);
      expect((await checkQcow2(image)).leaks).toBe(0);
      expect(await imageContents(image)).toEqual(contents);
      expect(result.bytesAfter).toBe(image.size());
      expect(result.bytesAfter).toBeLessThanOrEqual(result.bytesBefore);
      if (hasStockTools && geometry.options.zone === undefined) await expectStockClean(image.bytes(), geometry);
      const calls = { initial, changes: recorder.changes, flushes: recorder.flushes };
      for (let cut = 0; cut < (geometry === LUKS ? 2 : 6); cut++) {
        const moment = random.pick([random.below(recorder.moment() + 1), random.pick([0, ...recorder.flushMoments()])]);
        const kind = random.pick(CRASH_KINDS);
        const where = `seed ${seed}, power cut at ${moment} of ${recorder.moment()}, ${kind}`;
        const crashed = memoryStorage(crashedFile(calls, moment, kind, random));
        await expectOnlyLeaks(crashed.bytes(), where);
        expect(await imageContents(crashed), where).toEqual(contents);
        await compactQcow2(crashed, options);
        expect((await checkQcow2(crashed)).leaks, where).toBe(0);
        expect(await imageContents(crashed), where).toEqual(contents);
      }
    }
  });

  it("keeps the data whichever storage call fails", async () => {
    const [geometry] = COMPRESSED_GEOMETRIES;
    if (geometry === undefined) throw new Error("no geometry");
    const image = await fragmentedImage(geometry, new Random(seedFromEnvironment(3)));
    const contents = await imageContents(image);
    const sound = faultStorage(memoryStorage(image.bytes()), {});
    await compactQcow2(sound, options);
    const calls = sound.calls();
    expect(calls).toBeGreaterThan(20);
    for (let nth = 1; nth <= calls; nth += 5) {
      const memory = memoryStorage(image.bytes());
      const storage = faultStorage(memory, { rules: [{ fault: { type: "error" }, nth }] });
      try {
        await compactQcow2(storage, options);
      } catch (error) {
        // A storage that fails is not taken for a damaged image.
        if (!isZcowError(error) || error.code === "IMAGE_CORRUPT") throw error;
      }
      await expectOnlyLeaks(memory.bytes(), `call ${nth}`);
      expect(await imageContents(memory), `call ${nth}`).toEqual(contents);
    }
  });
});

async function expectStockClean(file: Uint8Array, geometry: CrashGeometry): Promise<void> {
  const path = join(temporaryDirectory(), "compacted.qcow2");
  await writeFile(path, file);
  const isEncrypted = geometry.options.encrypt !== undefined;
  const image = isEncrypted
    ? [
        "--object",
        `secret,id=s,data=${CRASH_PASSPHRASE}`,
        "--image-opts",
        `driver=qcow2,encrypt.key-secret=s,file.filename=${path}`,
      ]
    : ["-f", "qcow2", path];
  const { stdout, stderr, code } = await qemuImg(["check", ...image]);
  expect(`${stdout}${stderr}`).toContain("No errors were found on the image.");
  expect(code).toBe(0);
}
