import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { OpenDeviceOptions } from "../../src/block/format-driver.js";
import { createQcow2 } from "../../src/formats/qcow2/create.js";
import type { CreateQcow2Options } from "../../src/formats/qcow2/create-options.js";
import type { Qcow2Device } from "../../src/formats/qcow2/device.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { openRaw } from "../../src/formats/raw/device.js";
import { borrowedStorage } from "../../src/storage/borrowed-storage.js";
import { type MemoryStorage, memoryStorage } from "../../src/storage/memory-storage.js";
import type { Storage } from "../../src/storage/storage.js";
import { CRASH_PASSPHRASE } from "./crash-geometries.js";
import { CRASH_KINDS, type CrashKind, momentsAroundHeaders } from "./crash-images.js";
import { contentsOf, withZeros } from "./disk-bytes.js";
import { PlainWorkload } from "./plain-workload.js";
import { Random, seedFromEnvironment, taggedBytes } from "./random.js";
import { type ImageFiles, RecordedFiles } from "./recorded-files.js";
import { recoveredProblems, referenceCheck } from "./reference-check.js";
import { FlushLog, SECTOR, SectorHistory, type Span } from "./sector-history.js";
import { stockCheck } from "./stock-check.js";
import { hasStockTools, temporaryDirectory } from "./stock-tools.js";

/** A disk that grows under load, and loses power: its size is an old or a new one, and what was flushed is there. */

const KIB = 1024;
const STEPS = 25;
const CUTS = 8;

interface Growing {
  readonly name: string;
  readonly options: CreateQcow2Options;
  /** Bytes. */
  readonly sizes: readonly number[];
  /** Bytes of a backing image. */
  readonly behind?: number;
  readonly dataFile?: "plain" | "raw";
}

/** With clusters of 512 bytes an L1 table has to move behind 2 MiB. */
const SMALL_SIZES = [100.5, 300, 2100, 2300].map((size) => size * KIB);
const SIZES = [170.5, 171, 500, 700].map((size) => size * KIB);
const aes = { format: "aes", passphrase: CRASH_PASSPHRASE } as const;

const DISKS: readonly Growing[] = [
  { name: "512-byte clusters", options: { size: 96 * KIB, clusterSize: 512 }, sizes: SMALL_SIZES },
  {
    name: "lazy refcounts",
    options: { size: 96 * KIB, clusterSize: 512, lazyRefcounts: true },
    sizes: SMALL_SIZES,
  },
  { name: "version 2", options: { size: 96 * KIB, clusterSize: 512, compat: "0.10" }, sizes: SMALL_SIZES },
  { name: "subclusters", options: { size: 162.5 * KIB, clusterSize: 16 * KIB, extendedL2: true }, sizes: SIZES },
  { name: "encrypted", options: { size: 162.5 * KIB, clusterSize: 4 * KIB, encrypt: aes }, sizes: SIZES },
  { name: "overlay", options: { size: 162.5 * KIB, clusterSize: 4 * KIB }, sizes: SIZES, behind: 600.5 * KIB },
  {
    name: "overlay of version 2",
    options: { size: 162.5 * KIB, clusterSize: 4 * KIB, compat: "0.10" },
    sizes: SIZES,
    behind: 250 * KIB,
  },
  {
    name: "overlay of subclusters",
    options: { size: 162.5 * KIB, clusterSize: 16 * KIB, extendedL2: true },
    sizes: SIZES,
    behind: 600.5 * KIB,
  },
  { name: "data file", options: { size: 162.5 * KIB, clusterSize: 4 * KIB }, sizes: SIZES, dataFile: "plain" },
  { name: "raw data file", options: { size: 162.5 * KIB, clusterSize: 4 * KIB }, sizes: SIZES, dataFile: "raw" },
];

/** A size that the disk was to get, and when. */
interface Growth extends Span {
  readonly size: number;
}

async function newFiles({ options, behind, dataFile }: Growing): Promise<ImageFiles> {
  const [image, data] = [memoryStorage(), memoryStorage()];
  const files = {
    ...(behind === undefined ? {} : { backingFile: "behind.raw", backingFormat: "raw" }),
    ...(dataFile === undefined ? {} : { dataFile: "data.raw", dataFileRaw: dataFile === "raw" }),
  };
  await createQcow2(image, { ...options, ...files }, { dataFile: data });
  return { image: image.bytes(), data: data.bytes() };
}

function below({ behind }: Growing): MemoryStorage {
  return memoryStorage(taggedBytes(99, 0, behind ?? 0));
}

async function open(disk: Growing, image: Storage, data: Storage, behind: MemoryStorage): Promise<Qcow2Device> {
  const options: OpenDeviceOptions = {
    passphrase: CRASH_PASSPHRASE,
    ...(disk.behind === undefined ? {} : { backing: openRaw(borrowedStorage(behind), { readOnly: true }) }),
    ...(disk.dataFile === undefined ? {} : { dataFile: data }),
  };
  return (await openQcow2(image, options)) as Qcow2Device;
}

/** Everything that is wrong with what a crash at `moment` left. */
async function judge(
  disk: Growing,
  left: ImageFiles,
  history: SectorHistory,
  growths: readonly Growth[],
  moment: number,
  behind: MemoryStorage,
): Promise<string[]> {
  const { corruptions } = referenceCheck(left.image);
  if (corruptions.length > 0) return corruptions;
  const storage = memoryStorage(left.image);
  const device = await open(disk, storage, memoryStorage(left.data), behind);
  const least = Math.max(...growths.filter(({ end }) => end < moment).map(({ size }) => size));
  const possible = growths.filter(({ start, size }) => start < moment && size >= least).map(({ size }) => size);
  const problems = possible.includes(device.size) ? [] : [`${device.size} bytes, of ${possible.join(" or ")}`];
  problems.push(...history.judge(withZeros(await contentsOf(device), history.size), moment));
  const next = history.size + 64 * KIB;
  const expected = withZeros(await contentsOf(device), next);
  await device.grow(next);
  if (Buffer.compare(await contentsOf(device), expected) !== 0)
    problems.push("another growth shows what it should not");
  await device.write(0, new Uint8Array(1024).fill(0x77));
  await device.close();
  return [...problems, ...recoveredProblems(storage.bytes())];
}

/** `seeds` loads of each disk. */
export function describeGrowingCrash(firstSeed: number, seeds: number): void {
  describe("a disk that loses power while it grows", () => {
    it.each(DISKS)("has its old size or the new one, and what was flushed: $name", async (disk) => {
      const behind = below(disk);
      const folder = temporaryDirectory();
      const path = join(folder, "crashed.qcow2");
      await writeFile(join(folder, "behind.raw"), behind.bytes());
      const first = seedFromEnvironment(firstSeed);
      for (let seed = first; seed < first + seeds; seed++) {
        const random = new Random(seed);
        const files = new RecordedFiles(await newFiles(disk), random);
        const { clock } = files;
        const device = await open(disk, files.image, files.data, behind);
        const largest = disk.sizes.at(-1) as number;
        const history = new SectorHistory(largest, withZeros(await contentsOf(device), largest), new FlushLog());
        const growths: Growth[] = [{ start: -1, end: -1, size: device.size }];
        const workload = (): PlainWorkload =>
          new PlainWorkload({
            random,
            device,
            history,
            position: () => clock.now,
            clusterSize: device.limits.optimalAlignment,
            unaligned: seed % 2 === 0,
            from: Math.max(0, device.size - 200 * KIB),
          });
        const grow = async (size: number): Promise<void> => {
          const start = clock.now;
          const index = growths.push({ start, end: Number.POSITIVE_INFINITY, size }) - 1;
          await device.grow(size);
          growths[index] = { start, end: clock.now, size };
        };
        for (const size of disk.sizes) {
          await Promise.all([workload().run(STEPS), random.chance(0.7) ? grow(size) : undefined]);
          if (device.size < size) await grow(size);
          await workload().step("write");
        }
        await workload().run(STEPS);
        await new PlainWorkload({
          random,
          device,
          history,
          position: () => clock.now,
          clusterSize: SECTOR,
        }).verify();
        if (random.chance(0.5)) await device.close();
        for (const [moment, kind] of chosen(random, files, growths, clock.now)) {
          const left = files.crashed(moment, kind, random);
          const where = `seed ${seed}, power cut at ${moment} of ${clock.now}, ${kind}`;
          expect(await judge(disk, left, history, growths, moment, behind), where).toEqual([]);
          if (hasStockTools && disk.dataFile === undefined && random.chance(0.03))
            await stockCheck(path, left.image, where);
        }
      }
    });
  });
}

/** Moments around flushes, most of them while the disk grew, and others. */
function chosen(
  random: Random,
  files: RecordedFiles,
  growths: readonly Growth[],
  last: number,
): (readonly [number, CrashKind])[] {
  const flushes = random.shuffled(files.flushMoments());
  const whileGrowing = flushes.filter((moment) =>
    growths.some(({ start, end }) => start <= moment && moment <= end + 1),
  );
  // Few, and what they leave matters most.
  const aroundHeaders = files.recorders.flatMap(momentsAroundHeaders).flat();
  const moments = [...aroundHeaders, ...whileGrowing.slice(0, CUTS), ...flushes.slice(0, CUTS / 2)];
  while (moments.length < 3 * CUTS) moments.push(random.below(last + 1));
  return moments.flatMap((moment) => CRASH_KINDS.map((kind) => [moment, kind] as const));
}
