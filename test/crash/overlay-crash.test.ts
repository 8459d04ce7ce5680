import { describe, expect, it } from "vitest";
import { createQcow2 } from "../../src/formats/qcow2/create.js";
import type { CreateQcow2Options } from "../../src/formats/qcow2/create-options.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { openRaw } from "../../src/formats/raw/device.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { recordingStorage } from "../../src/storage/recording-storage.js";
import { CRASH_KINDS, crashedFile } from "../support/crash-images.js";
import { JitteryStorage } from "../support/jittery-storage.js";
import { PlainWorkload } from "../support/plain-workload.js";
import { Random, seedFromEnvironment, taggedBytes } from "../support/random.js";
import { referenceCheck } from "../support/reference-check.js";
import { FlushLog, SectorHistory } from "../support/sector-history.js";

const KIB = 1024;
const SIZE = 128 * KIB;
const SEEDS = 3;
const STEPS = 80;
const CUTS = 14;

const OVERLAYS: readonly (readonly [name: string, options: CreateQcow2Options, behind: number])[] = [
  ["512-byte clusters", { clusterSize: 512 }, SIZE],
  ["version 2", { clusterSize: 4 * KIB, compat: "0.10" }, SIZE],
  ["lazy refcounts, a shorter backing image", { clusterSize: 4 * KIB, lazyRefcounts: true }, 51 * KIB],
  ["subclusters", { clusterSize: 16 * KIB, extendedL2: true }, SIZE - 1536],
];

describe("an overlay whose writer loses power at any moment", () => {
  it.each(OVERLAYS)("shows what was flushed, or what is behind it: %s", async (_name, options, behindSize) => {
    const behind = taggedBytes(99, 0, behindSize);
    const first = seedFromEnvironment(11);
    for (let seed = first; seed < first + SEEDS; seed++) {
      const random = new Random(seed);
      const made = memoryStorage();
      await createQcow2(made, { ...options, size: SIZE, backingFile: "behind", backingFormat: "raw" });
      const initial = made.bytes();
      const flushes = new FlushLog();
      const history = new SectorHistory(SIZE, Buffer.concat([behind, new Uint8Array(SIZE)]).subarray(0, SIZE), flushes);
      const memory = memoryStorage(initial);
      const recorder = recordingStorage(random.chance(0.7) ? new JitteryStorage(memory, random) : memory, memory);
      const open = { backing: openRaw(memoryStorage(behind), { readOnly: true }) };
      const device = await openQcow2(recorder, open);
      const position = (): number => recorder.moment();
      const clusterSize = options.clusterSize ?? 0;
      const workload = new PlainWorkload({ random, device, history, position, clusterSize, unaligned: seed % 2 === 0 });
      await workload.run(STEPS);
      await workload.verify();
      const calls = { initial, changes: recorder.changes, flushes: recorder.flushes };
      const moments = random.shuffled(recorder.flushMoments()).slice(0, CUTS / 2);
      while (moments.length < CUTS) moments.push(random.below(recorder.moment() + 1));
      for (const moment of moments) {
        for (const kind of CRASH_KINDS) {
          const where = `seed ${seed}, power cut at ${moment} of ${recorder.moment()}, ${kind}`;
          const file = crashedFile(calls, moment, kind, random);
          expect(referenceCheck(file).corruptions, where).toEqual([]);
          const storage = memoryStorage(file);
          const recovered = await openQcow2(storage, { backing: openRaw(memoryStorage(behind), { readOnly: true }) });
          const bytes = new Uint8Array(SIZE);
          await recovered.read(0, bytes);
          expect(history.judge(bytes, moment), where).toEqual([]);
          await recovered.write(1000, bytes.subarray(0, 700));
          await recovered.close();
          expect(referenceCheck(storage.bytes()).corruptions, where).toEqual([]);
        }
      }
      await device.close();
    }
  });
});
