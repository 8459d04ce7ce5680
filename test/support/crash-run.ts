import type { BlockDevice } from "../../src/block/block-device.js";
import { isZonedDevice, type ZonedDevice } from "../../src/block/zoned-device.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { type RecordingStorage, recordingStorage } from "../../src/storage/recording-storage.js";
import type { Storage } from "../../src/storage/storage.js";
import { CRASH_PASSPHRASE } from "./crash-geometries.js";
import { CRASH_KINDS, type CrashKind, crashedFile, momentsAroundHeaders } from "./crash-images.js";
import { JitteryStorage } from "./jittery-storage.js";
import { OpenToOthers } from "./open-to-others.js";
import { PlainWorkload } from "./plain-workload.js";
import { Random } from "./random.js";
import { recoveredProblems, referenceCheck } from "./reference-check.js";
import { ReferenceImage } from "./reference-image.js";
import { FlushLog, SectorHistory } from "./sector-history.js";
import { ZoneHistory } from "./zone-history.js";
import { ZonedWorkload } from "./zoned-workload.js";

/** Runs a random workload on a recorded image, cuts the power at many moments, and judges what is left. */

export interface CrashPlan {
  /** The image to begin with. */
  readonly image: Uint8Array;
  readonly seed: number;
  /** Requests before each power cut. */
  readonly steps: number;
  /** Moments at which the power is cut; each is tried in all ways of losing unflushed writes. */
  readonly cuts: number;
  /** Lives: after each, one of the crashed images is taken, used again, and crashed again. */
  readonly lives: number;
  readonly unaligned?: boolean;
  /** Some writes are compressed. */
  readonly compressed?: boolean;
  /** Parts of the disk are filled past the device. */
  readonly filled?: boolean;
  /** Random-access requests stay at or above this byte of the disk. Default 0. */
  readonly from?: number;
  readonly cacheBytes?: number;
  readonly keepZoneSpace?: boolean;
  /** Sees some of the crashed images, for slower judges. */
  readonly onSample?: (file: Uint8Array, where: string) => Promise<void>;
}

export interface CrashTally {
  images: number;
}

/** All that may be known about a disk: its random-access part and its zones. */
export class DiskHistory {
  readonly sectors: SectorHistory;
  readonly zones: ZoneHistory | undefined;
  readonly randomBytes: number;

  constructor(image: ReferenceImage) {
    const zoned = image.zoned;
    this.randomBytes = zoned === undefined ? image.size : zoned.conventionalZones * zoned.zoneSize;
    const flushes = new FlushLog();
    this.sectors = new SectorHistory(this.randomBytes, image.readGuest(0, this.randomBytes), flushes);
    this.zones = zoned && new ZoneHistory({ ...zoned, size: image.size }, flushes);
    if (zoned === undefined) return;
    for (let index = zoned.conventionalZones; index < zoned.zoneCount; index++) {
      const zone = image.zone(index);
      const written = image.readGuest(zone.start, zone.writePointer - zone.start);
      if (written.length > 0) this.zones?.wrote(index, 0, written, { start: 0, end: 0, fua: true });
    }
  }
}

export interface DiskUse {
  readonly device: BlockDevice;
  readonly history: DiskHistory;
  readonly random: Random;
  readonly position: () => number;
  readonly steps: number;
  readonly unaligned: boolean;
  readonly compressed?: boolean;
  /** As in the workloads. */
  readonly filled?: Storage | undefined;
  readonly from?: number;
  /** As in the workloads. */
  readonly onError?: (error: unknown, what: string) => void;
}

/** Sends random requests of every kind that the disk takes, then reads everything back. */
export async function useDisk(use: DiskUse): Promise<void> {
  const { device, history, random } = use;
  const plain =
    history.randomBytes === 0
      ? undefined
      : new PlainWorkload({
          ...use,
          history: history.sectors,
          clusterSize: device.limits.optimalAlignment,
          to: history.randomBytes,
        });
  if (!isZonedDevice(device) || history.zones === undefined) {
    await plain?.run(use.steps);
    await plain?.verify();
    return;
  }
  const zoned = new ZonedWorkload({ ...use, device, history: history.zones });
  for (let step = 0; step < use.steps; step++) {
    if (plain !== undefined && random.chance(0.2)) await plain.step();
    else await zoned.step();
  }
  await zoned.verify();
}

/** Reads the recovered disk and compares it with what it may be. */
async function judgeContents(device: BlockDevice, history: DiskHistory, moment: number): Promise<string[]> {
  const area = new Uint8Array(history.randomBytes);
  if (area.length > 0) await device.read(0, area);
  const problems = history.sectors.judge(area, moment);
  if (history.zones === undefined) return problems;
  for (const zone of (device as ZonedDevice).report()) {
    if (zone.type === "conventional") continue;
    const bytes = new Uint8Array(zone.length);
    await device.read(zone.start, bytes);
    problems.push(...history.zones.judge(zone.index, zone, bytes, moment));
  }
  return problems;
}

/** Everything that is wrong with a file after a crash at `moment`. */
export async function judgeCrash(
  file: Uint8Array,
  history: DiskHistory,
  moment: number,
  dataFile?: Uint8Array,
): Promise<string[]> {
  const verdict = referenceCheck(file);
  if (verdict.corruptions.length > 0) return verdict.corruptions.map((text) => `crashed image: ${text}`);
  const storage = memoryStorage(file);
  const device = await openQcow2(storage, {
    passphrase: CRASH_PASSPHRASE,
    ...(dataFile === undefined ? {} : { dataFile: memoryStorage(dataFile) }),
  });
  const problems = await judgeContents(device, history, moment);
  await useALittle(device);
  await device.close();
  return [...problems, ...recoveredProblems(storage.bytes())];
}

/** The recovered disk must work: writes and zones of the recovered image are used once, without judging again. */
async function useALittle(device: BlockDevice): Promise<void> {
  const bytes = new Uint8Array(1024).fill(0x77);
  if (!isZonedDevice(device)) {
    await device.write(0, bytes.subarray(0, Math.min(1024, device.size)));
    return;
  }
  // A zone that is active already needs no resource that may be used up.
  const zones = device.report().filter((one) => one.type !== "conventional" && one.state !== "full");
  const zone = zones.find((one) => one.state === "closed") ?? zones[0];
  if (zone === undefined || zone.writePointer + bytes.length > zone.start + zone.capacity) return;
  await device.append(zone.start, bytes);
}

/** Many moments around flushes, some around changes of the header, which are rare and matter most, the others anywhere. */
function chooseMoments(recorder: RecordingStorage, random: Random, cuts: number): number[] {
  const aroundHeaders = random.shuffled(momentsAroundHeaders(recorder)).flat();
  const boundaries = random.shuffled(recorder.flushMoments()).slice(0, Math.ceil(cuts / 2));
  boundaries.push(...aroundHeaders.slice(0, Math.ceil(cuts / 4)));
  const others = Array.from({ length: cuts - boundaries.length }, () => random.below(recorder.moment() + 1));
  return [...new Set([...boundaries, ...others])].toSorted((a, b) => a - b);
}

/** Throws with every problem of the first image that has one. */
export async function runCrashPlan(plan: CrashPlan): Promise<CrashTally> {
  const random = new Random(plan.seed);
  const tally = { images: 0 };
  let image = plan.image;
  for (let life = 0; life < plan.lives; life++) {
    const history = new DiskHistory(new ReferenceImage(image));
    const memory = memoryStorage(image);
    const recorder = recordingStorage(random.chance(0.7) ? new JitteryStorage(memory, random) : memory, memory);
    const filled = plan.filled === true ? new OpenToOthers(recorder) : undefined;
    const device = await openQcow2(filled ?? recorder, {
      passphrase: CRASH_PASSPHRASE,
      ...(plan.cacheBytes && { cacheBytes: plan.cacheBytes }),
      keepZoneSpace: plan.keepZoneSpace ?? false,
    });
    await useDisk({
      device,
      history,
      random,
      position: () => recorder.moment(),
      steps: plan.steps,
      unaligned: plan.unaligned ?? false,
      compressed: plan.compressed ?? false,
      filled,
      from: plan.from ?? 0,
    });
    if (random.chance(0.5)) await device.close();
    const calls = { initial: image, changes: recorder.changes, flushes: recorder.flushes };
    for (const moment of chooseMoments(recorder, random, plan.cuts)) {
      for (const kind of CRASH_KINDS) {
        const file = crashedFile(calls, moment, kind, random);
        const where = `seed ${plan.seed}, life ${life}, power cut at ${moment} of ${recorder.moment()}, ${kind}`;
        await judgeOne(file, history, moment, where);
        tally.images += 1;
        if (random.chance(0.02)) await plan.onSample?.(file, where);
      }
    }
    image = await nextLife(calls, recorder, history, random);
  }
  return tally;
}

async function judgeOne(file: Uint8Array, history: DiskHistory, moment: number, where: string): Promise<void> {
  let problems: string[];
  try {
    problems = await judgeCrash(file, history, moment);
  } catch (error) {
    throw new Error(`${where}: the image does not open or work: ${String(error)}`, { cause: error });
  }
  if (problems.length > 0) throw new Error(`${where}:\n${problems.join("\n")}`);
}

/** One crashed image, opened once by the product so that stale counts are mended before the naive reader sees it. */
async function nextLife(
  calls: Parameters<typeof crashedFile>[0],
  recorder: RecordingStorage,
  history: DiskHistory,
  random: Random,
): Promise<Uint8Array> {
  const kind: CrashKind = random.pick(CRASH_KINDS);
  // Right after a reset the old data are still mapped: the next life must never show them.
  const resets = history.zones?.resetMoments() ?? [];
  const moment = resets.length > 0 && random.chance(0.6) ? random.pick(resets) : random.below(recorder.moment() + 1);
  const storage = memoryStorage(crashedFile(calls, moment, kind, random));
  const keeper = storage.clone();
  const device = await openQcow2(storage, { passphrase: CRASH_PASSPHRASE });
  await device.close();
  return random.chance(0.5) ? keeper.bytes() : storage.bytes();
}
