import { describe, expect, it } from "vitest";
import { createQcow2 } from "../../src/formats/qcow2/create.js";
import type { CreateQcow2Options } from "../../src/formats/qcow2/create-options.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { faultStorage } from "../../src/storage/fault-storage.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { CRASH_KINDS } from "../support/crash-images.js";
import { DiskHistory, judgeCrash, useDisk } from "../support/crash-run.js";
import { Random, seedFromEnvironment } from "../support/random.js";
import { type ImageFiles, RecordedFiles } from "../support/recorded-files.js";
import { ReferenceImage } from "../support/reference-image.js";

/** An image and its data file lose power together: what the mapping and the write pointers promise must be in the data file. */

const KIB = 1024;
const zone = { mode: "host-managed", size: 32 * KIB, capacity: 26 * KIB, conventionalZones: 1 } as const;

const IMAGES: readonly (readonly [name: string, options: CreateQcow2Options])[] = [
  ["512-byte clusters", { size: 96 * KIB, clusterSize: 512 }],
  ["lazy refcounts", { size: 128 * KIB + 512, clusterSize: 4 * KIB, lazyRefcounts: true }],
  ["subclusters", { size: 256 * KIB, clusterSize: 16 * KIB, extendedL2: true }],
  ["a raw data file", { size: 96 * KIB + 512, clusterSize: 4 * KIB, dataFileRaw: true }],
  ["zones", { size: 256 * KIB, clusterSize: 4 * KIB, zone }],
  ["zones of subclusters", { size: 256 * KIB, clusterSize: 16 * KIB, extendedL2: true, zone }],
  ["zones in a raw data file", { size: 256 * KIB, clusterSize: 4 * KIB, dataFileRaw: true, zone }],
];

async function newFiles(options: CreateQcow2Options): Promise<ImageFiles> {
  const [image, data] = [memoryStorage(), memoryStorage()];
  await createQcow2(image, { ...options, dataFile: "data" }, { dataFile: data });
  return { image: image.bytes(), data: data.bytes() };
}

describe("an image with an external data file", () => {
  it.each(IMAGES)("holds what was flushed when power fails for both files: %s", async (_name, options) => {
    const first = seedFromEnvironment(21);
    for (let seed = first; seed < first + 2; seed++) {
      const random = new Random(seed);
      const files = await newFiles(options);
      const recorded = new RecordedFiles(files, random);
      const { clock } = recorded;
      const history = new DiskHistory(new ReferenceImage(files.image, files.data));
      const device = await openQcow2(recorded.image, { dataFile: recorded.data });
      await useDisk({
        device,
        history,
        random,
        position: () => clock.now,
        steps: 70,
        unaligned: options.zone === undefined && seed % 2 === 0,
      });
      if (random.chance(0.5)) await device.close();
      const moments = random.shuffled(recorded.flushMoments()).slice(0, 6);
      while (moments.length < 10) moments.push(random.below(clock.now + 1));
      for (const moment of moments) {
        for (const kind of CRASH_KINDS) {
          const where = `seed ${seed}, power cut at ${moment} of ${clock.now}, ${kind}`;
          const left = recorded.crashed(moment, kind, random);
          expect(await judgeCrash(left.image, history, moment, left.data), where).toEqual([]);
          if (options.dataFileRaw === true && options.zone === undefined)
            expect(history.sectors.judge(left.data.subarray(0, history.randomBytes), moment), where).toEqual([]);
        }
      }
    }
  });

  it.each(IMAGES)("loses nothing flushed whichever call to the data file fails: %s", async (_name, options) => {
    const files = await newFiles(options);
    const run = async (seed: number, nth: number): Promise<number> => {
      const random = new Random(seed);
      const recorded = new RecordedFiles(files);
      const { clock } = recorded;
      const failing = faultStorage(recorded.data, nth === 0 ? {} : { rules: [{ fault: { type: "error" }, nth }] });
      const history = new DiskHistory(new ReferenceImage(files.image, files.data));
      const onError = (error: unknown, what: string): void => {
        if (failing.faults.length === 0) throw new Error(`${what} failed before any fault`, { cause: error });
      };
      const device = await openQcow2(recorded.image, { dataFile: failing });
      await useDisk({ device, history, random, position: () => clock.now, steps: 15, unaligned: false, onError });
      await device.close().catch((error: unknown) => onError(error, "close"));
      for (const kind of ["killed", "flushed", "sectors"] as const) {
        const left = recorded.crashed(clock.now, kind, random);
        expect(await judgeCrash(left.image, history, clock.now, left.data), `call ${nth}, ${kind}`).toEqual([]);
      }
      return failing.calls();
    };
    const seed = seedFromEnvironment(4);
    const calls = await run(seed, 0);
    expect(calls).toBeGreaterThan(8);
    for (let nth = 1; nth <= calls; nth += Math.ceil(calls / 10)) await run(seed, nth);
  });
});
