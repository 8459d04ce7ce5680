import { describe, expect, it } from "vitest";
import { createQcow2 } from "../../../../src/formats/qcow2/create.js";
import type { CreateQcow2Options } from "../../../../src/formats/qcow2/create-options.js";
import { EXTENSION, withExtension } from "../../../../src/formats/qcow2/extensions.js";
import { AUTOCLEAR } from "../../../../src/formats/qcow2/features.js";
import type { Qcow2Header } from "../../../../src/formats/qcow2/header.js";
import { readHeader } from "../../../../src/formats/qcow2/header-read.js";
import { replaceHeader } from "../../../../src/formats/qcow2/header-replace.js";
import { headerSteps } from "../../../../src/formats/qcow2/header-steps.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { recordingStorage } from "../../../../src/storage/recording-storage.js";
import { crashedFile } from "../../../support/crash-images.js";
import { Random } from "../../../support/random.js";

const SIZE = 1024 * 1024;
const LONG = `/folder/${Array.from({ length: 220 }, (_, index) => index * 37).join("/")}`.slice(0, 900);

/** A header with bitmaps, whose directory lies in the cluster of the L1 table: nobody follows it here. */
function withBitmaps(header: Qcow2Header): Qcow2Header {
  const data = new Uint8Array(24);
  const view = new DataView(data.buffer);
  view.setUint32(0, 1);
  view.setBigUint64(8, 32n);
  view.setBigUint64(16, BigInt(header.l1TableOffset));
  const features = { ...header.features, autoclear: header.features.autoclear | AUTOCLEAR.bitmaps };
  return { ...header, features, extensions: withExtension(header.extensions, EXTENSION.bitmaps, data) };
}

const withoutBitmaps = (header: Qcow2Header): Qcow2Header => ({
  ...header,
  features: { ...header.features, autoclear: 0n },
  extensions: withExtension(header.extensions, EXTENSION.bitmaps, undefined),
});

const toVersion3 = (header: Qcow2Header): Qcow2Header => ({ ...header, version: 3, headerLength: 112 });

type Change = (header: Qcow2Header) => Qcow2Header;

const CASES: readonly (readonly [name: string, options: CreateQcow2Options, prepare: Change, change: Change])[] = [
  ["bitmaps are added", {}, (header) => header, withBitmaps],
  ["bitmaps are removed", {}, withBitmaps, withoutBitmaps],
  [
    "bitmaps are added to an overlay",
    { backingFile: "behind.raw", backingFormat: "raw" },
    (header) => header,
    withBitmaps,
  ],
  [
    "bitmaps are added to an overlay with a long name",
    { backingFile: LONG, backingFormat: "raw" },
    (header) => header,
    withBitmaps,
  ],
  [
    "bitmaps are removed from an overlay with a long name",
    { backingFile: LONG, backingFormat: "raw" },
    withBitmaps,
    withoutBitmaps,
  ],
  [
    "version 2 becomes version 3",
    { compat: "0.10", backingFile: LONG, backingFormat: "raw", clusterSize: 4096 },
    (header) => header,
    toVersion3,
  ],
];

async function imageWith(options: CreateQcow2Options, prepare: Change): Promise<Uint8Array> {
  const storage = memoryStorage();
  await createQcow2(storage, { size: SIZE, ...options });
  await replaceHeader(storage, prepare(await readHeader(storage)), () => storage.flush());
  return storage.bytes();
}

async function said(file: Uint8Array): Promise<string> {
  const { backingFileName, backingFormat, bitmaps, version, features } = await readHeader(memoryStorage(file));
  return JSON.stringify([backingFileName, backingFormat, bitmaps, version, String(features.autoclear)]);
}

describe("a header of which several sectors change", () => {
  it.each(CASES)("is the old one or the new one after a crash: %s", async (_name, options, prepare, change) => {
    const image = await imageWith(options, prepare);
    const memory = memoryStorage(image);
    const recorder = recordingStorage(memory, memory);
    await replaceHeader(recorder, change(await readHeader(memory)), () => recorder.flush());
    expect(recorder.flushes.length, "more than one step").toBeGreaterThan(1);
    const allowed = [await said(image), await said(memory.bytes())];
    const calls = { initial: image, changes: recorder.changes, flushes: recorder.flushes };
    const random = new Random(5);
    for (let moment = 0; moment <= recorder.moment(); moment++) {
      for (let round = 0; round < 20; round++) {
        expect(allowed).toContain(await said(crashedFile(calls, moment, "sectors", random)));
      }
    }
  });

  it("keeps the names of features", async () => {
    const image = await imageWith({ backingFile: "behind.raw", backingFormat: "raw" }, (header) => header);
    const storage = memoryStorage(image);
    const header = await readHeader(storage);
    await replaceHeader(storage, withBitmaps(header), () => storage.flush());
    expect((await readHeader(storage)).featureNames).toEqual(header.featureNames);
  });

  it("has no safe order where there is no room for two names", async () => {
    const options = { compat: "0.10", clusterSize: 1024, backingFile: LONG.slice(0, 850) } as const;
    const image = await imageWith({ ...options, backingFormat: "raw" }, (header) => header);
    const header = toVersion3(await readHeader(memoryStorage(image)));
    expect(headerSteps(image.slice(0, 1024), header, image.length)).toBeUndefined();
  });
});
