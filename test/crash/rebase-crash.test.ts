import { describe, expect, it } from "vitest";
import { checkQcow2 } from "../../src/formats/qcow2/check/check.js";
import type { CreateQcow2Options } from "../../src/formats/qcow2/create-options.js";
import { isZcowError, memoryStorage, openImage, type RebaseImageOptions, rebaseImage } from "../../src/index.js";
import { faultStorage } from "../../src/storage/fault-storage.js";
import { recordingStorage } from "../../src/storage/recording-storage.js";
import { CRASH_KINDS, crashedFile } from "../support/crash-images.js";
import { JitteryStorage } from "../support/jittery-storage.js";
import { newImage } from "../support/new-image.js";
import { Random, seedFromEnvironment, taggedBytes } from "../support/random.js";

/** Power cuts and failing calls while an overlay gets another backing file: it must read the same, whichever it names then. */

const KIB = 1024;

const FILES: ReadonlyMap<string, Uint8Array> = new Map([
  ["old.raw", taggedBytes(1, 0, 200 * KIB)],
  ["new.raw", newDisk()],
  [`a/${"long-name-".repeat(60)}`, newDisk()],
]);

/** Like the old one in parts, and shorter. */
function newDisk(): Uint8Array {
  const bytes = taggedBytes(1, 0, 150 * KIB);
  bytes.set(taggedBytes(2, 0, 40 * KIB), 30 * KIB);
  return bytes;
}

const surroundings = {
  implicitFiles: "allow",
  openFile: (path: string) => Promise.resolve(memoryStorage((FILES.get(path) as Uint8Array).slice())),
} as const;

const SHAPES: readonly { name: string; options: CreateQcow2Options }[] = [
  { name: "4 KiB clusters", options: { clusterSize: 4 * KIB } },
  { name: "512-byte clusters", options: { clusterSize: 512 } },
  { name: "version 2", options: { clusterSize: 4 * KIB, compat: "0.10" } },
  { name: "subclusters", options: { clusterSize: 16 * KIB, extendedL2: true } },
];

const TARGETS: readonly { name: string; to: Partial<RebaseImageOptions> }[] = [
  { name: "another file", to: { backingFile: "new.raw", backingFormat: "raw" } },
  { name: "none", to: { backingFile: "" } },
  { name: "a longer name", to: { backingFile: `a/${"long-name-".repeat(60)}`, backingFormat: "raw" } },
  { name: "the same", to: { backingFile: "old.raw", backingFormat: "raw" } },
];

async function overlay(options: CreateQcow2Options): Promise<Uint8Array> {
  const backing = { backingFile: "old.raw", backingFormat: "raw" };
  const storage = memoryStorage(await newImage({ size: 256 * KIB, ...backing, ...options }));
  const device = await openImage(storage, { format: "qcow2", ...surroundings });
  await device.write(10 * KIB, taggedBytes(3, 0, 20 * KIB));
  await device.write(220 * KIB, taggedBytes(3, 0, 700));
  await device.close();
  return storage.bytes();
}

async function contents(file: Uint8Array): Promise<Uint8Array> {
  const device = await openImage(memoryStorage(file), { format: "qcow2", readOnly: true, ...surroundings });
  const bytes = new Uint8Array(device.size);
  await device.read(0, bytes);
  await device.close();
  return bytes;
}

async function expectSound(file: Uint8Array, where: string): Promise<void> {
  const { corruptions, checkErrors, failure } = await checkQcow2(memoryStorage(file));
  expect({ corruptions, checkErrors, failure }, where).toEqual({ corruptions: 0, checkErrors: 0, failure: undefined });
}

const CASES = SHAPES.flatMap((shape) =>
  TARGETS.filter(({ name }) => shape.options.clusterSize !== 512 || name !== "a longer name").map((target) => ({
    shape,
    target,
  })),
);

describe("a rebase", () => {
  it.each(CASES)("reads the same when power fails: $target.name, $shape.name", async ({ shape, target }) => {
    const random = new Random(seedFromEnvironment(1));
    const initial = await overlay(shape.options);
    const before = await contents(initial);
    const memory = memoryStorage(initial);
    const recorder = recordingStorage(new JitteryStorage(memory, random), memory);
    await rebaseImage(recorder, { format: "qcow2", ...surroundings, ...target.to });
    expect(await contents(memory.bytes())).toEqual(before);
    await expectSound(memory.bytes(), "after the rebase");
    const calls = { initial, changes: recorder.changes, flushes: recorder.flushes };
    for (let cut = 0; cut < 6; cut++) {
      const moment = random.pick([random.below(recorder.moment() + 1), random.pick([0, ...recorder.flushMoments()])]);
      const kind = random.pick(CRASH_KINDS);
      const where = `power cut at ${moment} of ${recorder.moment()}, ${kind}`;
      const crashed = crashedFile(calls, moment, kind, random);
      await expectSound(crashed, where);
      expect(Buffer.compare(await contents(crashed), before), where).toBe(0);
      const again = memoryStorage(crashed);
      await rebaseImage(again, { format: "qcow2", ...surroundings, ...target.to });
      expect(Buffer.compare(await contents(again.bytes()), before), `${where}, rebased again`).toBe(0);
    }
  });

  it("reads the same whichever storage call fails", async () => {
    const initial = await overlay({ clusterSize: 4 * KIB });
    const before = await contents(initial);
    const to = { format: "qcow2", ...surroundings, backingFile: "new.raw", backingFormat: "raw" } as const;
    const sound = faultStorage(memoryStorage(initial), {});
    await rebaseImage(sound, to);
    expect(sound.calls()).toBeGreaterThan(20);
    for (let nth = 1; nth <= sound.calls(); nth += 5) {
      const memory = memoryStorage(initial);
      try {
        await rebaseImage(faultStorage(memory, { rules: [{ fault: { type: "error" }, nth }] }), to);
      } catch (error) {
        if (!isZcowError(error)) throw error;
      }
      await expectSound(memory.bytes(), `call ${nth}`);
      expect(Buffer.compare(await contents(memory.bytes()), before), `call ${nth}`).toBe(0);
    }
  });
});
