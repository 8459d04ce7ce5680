import { describe, expect, it } from "vitest";
import { createQcow2 } from "../../src/formats/qcow2/create.js";
import type { CreateQcow2Options } from "../../src/formats/qcow2/create-options.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { changeBitmap, describeImage, isZcowError, readBitmap } from "../../src/index.js";
import { faultStorage } from "../../src/storage/fault-storage.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { recordingStorage } from "../../src/storage/recording-storage.js";
import { CRASH_KINDS, crashedFile } from "../support/crash-images.js";
import { DiskHistory, judgeCrash, useDisk } from "../support/crash-run.js";
import { JitteryStorage } from "../support/jittery-storage.js";
import { Random, seedFromEnvironment } from "../support/random.js";
import { ReferenceImage } from "../support/reference-image.js";
import { equalBytes, SECTOR } from "../support/sector-history.js";

/** Bitmaps that record writes: after a crash a bitmap marks everything that differs, or says that it cannot be trusted. */

const KIB = 1024;
const qcow2 = { format: "qcow2" } as const;
const GRANULARITY = 512;

const IMAGES: readonly (readonly [name: string, options: CreateQcow2Options])[] = [
  ["512-byte clusters", { size: 96 * KIB, clusterSize: 512 }],
  ["lazy refcounts", { size: 128 * KIB, clusterSize: 4 * KIB, lazyRefcounts: true }],
  ["compressed clusters", { size: 128 * KIB, clusterSize: 4 * KIB }],
  ["subclusters", { size: 256 * KIB, clusterSize: 16 * KIB, extendedL2: true }],
  [
    "zones",
    {
      size: 256 * KIB,
      clusterSize: 4 * KIB,
      zone: { mode: "host-managed", size: 32 * KIB, capacity: 26 * KIB, conventionalZones: 1 },
    },
  ],
];

async function markedImage(options: CreateQcow2Options): Promise<Uint8Array> {
  const storage = memoryStorage();
  await createQcow2(storage, options);
  await changeBitmap(storage, { ...qcow2, name: "marks", actions: [{ do: "add", granularity: GRANULARITY }] });
  await changeBitmap(storage, { ...qcow2, name: "off", actions: [{ do: "add" }, { do: "disable" }] });
  return storage.bytes();
}

/** Sectors that differ from `before` and are not marked; undefined when the bitmap says that it cannot be trusted. */
async function unmarked(file: Uint8Array, before: Uint8Array): Promise<number[] | undefined> {
  const storage = memoryStorage(file);
  const device = await openQcow2(memoryStorage(file), { readOnly: true });
  const now = new Uint8Array(device.size);
  await device.read(0, now);
  await device.close();
  try {
    const bits = await readBitmap(storage, { ...qcow2, name: "marks" });
    const isMarked = new Uint8Array(now.length / SECTOR);
    for (const { offset, length } of bits.ranges()) isMarked.fill(1, offset / SECTOR, (offset + length) / SECTOR);
    const differs = (sector: number): boolean => {
      const [from, to] = [sector * SECTOR, (sector + 1) * SECTOR];
      return !equalBytes(now.subarray(from, to), before.subarray(from, to));
    };
    return [...isMarked.keys()].filter((sector) => isMarked[sector] === 0 && differs(sector));
  } catch (error) {
    if (!isZcowError(error, "BITMAP_INCONSISTENT")) throw error;
    return undefined;
  }
}

describe("a bitmap that records writes", () => {
  it.each(IMAGES)("marks all that differs, or is inconsistent, when power fails: %s", async (name, options) => {
    const first = seedFromEnvironment(31);
    let trusted = 0;
    let distrusted = 0;
    for (let seed = first; seed < first + 2; seed++) {
      const random = new Random(seed);
      const image = await markedImage(options);
      const memory = memoryStorage(image);
      const recorder = recordingStorage(new JitteryStorage(memory, random), memory);
      const history = new DiskHistory(new ReferenceImage(image));
      const device = await openQcow2(recorder);
      const before = new Uint8Array(device.size);
      const steps = 50;
      const position = (): number => recorder.moment();
      await useDisk({
        device,
        history,
        random,
        position,
        steps,
        unaligned: false,
        compressed: name === "compressed clusters",
      });
      await device.close();
      expect(await unmarked(memory.bytes(), before)).toEqual([]);
      const calls = { initial: image, changes: recorder.changes, flushes: recorder.flushes };
      // Bitmaps are stored at the end: many cuts there.
      const moments = recorder.flushMoments().slice(-10);
      while (moments.length < 16) moments.push(random.below(recorder.moment() + 1));
      for (const moment of moments) {
        for (const kind of CRASH_KINDS) {
          const where = `seed ${seed}, power cut at ${moment} of ${recorder.moment()}, ${kind}`;
          const file = crashedFile(calls, moment, kind, random);
          expect(await judgeCrash(file, history, moment), where).toEqual([]);
          const missed = await unmarked(file, before);
          if (missed === undefined) distrusted += 1;
          else trusted += 1;
          expect(missed ?? [], where).toEqual([]);
        }
      }
    }
    expect(trusted).toBeGreaterThan(0);
    expect(distrusted).toBeGreaterThan(0);
  });

  it.each(IMAGES)("is never short of marks whichever storage call fails: %s", async (_name, options) => {
    const image = await markedImage(options);
    const run = async (nth: number): Promise<number> => {
      const memory = memoryStorage(image);
      const storage = faultStorage(memory, nth === 0 ? {} : { rules: [{ fault: { type: "error" }, nth }] });
      const history = new DiskHistory(new ReferenceImage(image));
      const onError = (error: unknown): void => {
        if (!isZcowError(error) || storage.faults.length === 0) throw error;
      };
      try {
        const device = await openQcow2(storage);
        const random = new Random(seedFromEnvironment(9));
        await useDisk({ device, history, random, position: () => 0, steps: 12, unaligned: false, onError });
        await device.close();
      } catch (error) {
        onError(error);
      }
      const { virtualSize } = await describeImage(memoryStorage(memory.bytes()), qcow2);
      const missed = await unmarked(memory.bytes(), new Uint8Array(virtualSize));
      expect(missed ?? [], `call ${nth}`).toEqual([]);
      return storage.calls();
    };
    const calls = await run(0);
    for (let nth = 1; nth <= calls; nth += Math.ceil(calls / 25)) await run(nth);
  });
});
