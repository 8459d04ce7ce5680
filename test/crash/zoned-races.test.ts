import { describe, it } from "vitest";
import type { ZonedDevice } from "../../src/block/zoned-device.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { faultStorage } from "../../src/storage/fault-storage.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { recordingStorage } from "../../src/storage/recording-storage.js";
import { CRASH_KINDS, crashedFile } from "../support/crash-images.js";
import { JitteryStorage } from "../support/jittery-storage.js";
import { newImage } from "../support/new-image.js";
import { Random, seedFromEnvironment } from "../support/random.js";
import { referenceCheck } from "../support/reference-check.js";
import { ZoneRaces } from "../support/zone-races.js";

const KIB = 1024;

async function open(storage: Parameters<typeof openQcow2>[0], cacheBytes?: number): Promise<ZonedDevice> {
  return (await openQcow2(storage, cacheBytes === undefined ? {} : { cacheBytes })) as ZonedDevice;
}

/** One life of an image: everything at once, some writes failing or not, then the power cut at many moments. */
async function race(seed: number): Promise<void> {
  const random = new Random(seed);
  const image = await newImage({
    size: 320 * KIB,
    clusterSize: random.pick([512, 4 * KIB, 16 * KIB]),
    refcountBits: random.pick([1, 16, 64]),
    zone: { mode: "host-managed", size: 64 * KIB, capacity: random.pick([64 * KIB, 40 * KIB, 45 * KIB + 512]) },
  });
  const memory = memoryStorage(image);
  const recorder = recordingStorage(new JitteryStorage(memory, random), memory);
  const faults = faultStorage(recorder, {});
  const device = await open(faults, random.pick([4 * KIB, undefined]));
  // One that stores the bytes all the same leaves them behind the pointer.
  const type = random.pick(["error", "lost"] as const);
  if (random.chance(0.6))
    faults.plan({ rules: [{ fault: { type }, kinds: ["write"], every: random.between(10, 60) }] });
  const races = new ZoneRaces({ device, random, moment: () => recorder.moment() });
  await races.run(120);
  const calls = { initial: image, changes: recorder.changes, flushes: recorder.flushes };
  const moments = [
    ...random.shuffled(recorder.flushMoments()).slice(0, 6),
    random.below(recorder.moment()),
    recorder.moment(),
  ];
  for (const moment of moments) {
    for (const kind of CRASH_KINDS) {
      const file = crashedFile(calls, moment, kind, random);
      const disk = await open(memoryStorage(file));
      const problems = [...referenceCheck(file).corruptions, ...(await races.judge(disk, moment))];
      if (problems.length === 0) continue;
      throw new Error(`seed ${seed}, power cut at ${moment} of ${recorder.moment()}, ${kind}:\n${problems.join("\n")}`);
    }
  }
}

describe("a zoned image that loses power while appends, resets, finishes and flushes race each other", () => {
  const first = seedFromEnvironment(1);
  it.each(Array.from({ length: 12 }, (_, i) => first + i))("keeps every promise (seed %i)", async (seed) => {
    await race(seed);
  });
});
