import { isZcowError } from "../../src/base/errors.js";
import type { OpenDeviceOptions } from "../../src/block/format-driver.js";
import { isZonedDevice } from "../../src/block/zoned-device.js";
import { readHeader } from "../../src/formats/qcow2/header-read.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { listSnapshots } from "../../src/jobs/snapshot.js";
import { borrowedStorage } from "../../src/storage/borrowed-storage.js";
import { type Fault, faultStorage } from "../../src/storage/fault-storage.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { recordingStorage } from "../../src/storage/recording-storage.js";
import type { Storage } from "../../src/storage/storage.js";
import { CRASH_PASSPHRASE } from "./crash-geometries.js";
import { CRASH_KINDS, crashedFile } from "./crash-images.js";
import { JitteryStorage } from "./jittery-storage.js";
import { Random } from "./random.js";
import { INCOMPATIBLE_DIRTY, ReferenceImage } from "./reference-image.js";
import { referenceCounts } from "./reference-snapshots.js";

/**
 * Cuts the power, and fails storage calls, in the middle of an operation on a whole image, and judges what is left: the image must
 * be sound, and all that it holds must be what it was before or what it is after.
 */

/** An operation on an image that nobody else uses. */
export interface ImageOperation {
  readonly name: string;
  readonly run: (storage: Storage, image: ImageToChange) => Promise<unknown>;
  /** Clusters may be lost on the way; nothing else may. */
  readonly leaks?: boolean;
  /** Made of several steps, each of which may be the last: pieces of what the image holds may be old and others new. */
  readonly inSteps?: boolean;
}

/** An image, and how to open it. */
export interface ImageToChange {
  readonly bytes: Uint8Array;
  /** What opening it takes beside the passphrase. Called for each opening. */
  readonly files?: () => Pick<OpenDeviceOptions, "backing" | "dataFile">;
}

/** How many power cuts and failing calls are tried. */
export interface Effort {
  readonly cuts: number;
  readonly faults: number;
}

/** What an image holds, by the names of its parts. */
type Holdings = ReadonlyMap<string, Uint8Array | string>;

const INCONSISTENT = "inconsistent";

/** Everything that a user of the image can ask for: the disk, snapshots, write pointers, bitmaps. */
export async function holdingsOf(file: Uint8Array, image: ImageToChange): Promise<Holdings> {
  const holdings = new Map<string, Uint8Array | string>();
  const storage = memoryStorage(file);
  await readDisk(storage, image, undefined, "disk", holdings);
  for (const { id, name } of await listSnapshots(storage, { format: "qcow2" })) {
    await readDisk(storage, image, id, `snapshot ${name}`, holdings);
  }
  const header = await readHeader(storage);
  if (header.bitmaps === undefined) return holdings;
  const { loadBitmaps } = await import("../../src/formats/qcow2/bitmaps/load-bitmaps.js");
  for (const { entry, bits } of await loadBitmaps(storage, header)) {
    const ranges = bits === undefined ? [] : [...bits.ranges()].map(({ offset, length }) => `${offset}+${length}`);
    const text = `${entry.flags} ${entry.granularityBits} ${ranges.join(" ")}`;
    holdings.set(`bitmap ${entry.name}`, bits === undefined ? INCONSISTENT : text);
  }
  return holdings;
}

async function readDisk(
  storage: Storage,
  { files }: ImageToChange,
  snapshot: string | undefined,
  name: string,
  holdings: Map<string, Uint8Array | string>,
): Promise<void> {
  const device = await openQcow2(borrowedStorage(storage), {
    ...files?.(),
    readOnly: true,
    passphrase: CRASH_PASSPHRASE,
    ...(snapshot === undefined ? {} : { snapshot }),
  });
  const bytes = new Uint8Array(device.size);
  await device.read(0, bytes);
  holdings.set(name, bytes);
  if (isZonedDevice(device)) {
    holdings.set(
      `pointers of the ${name}`,
      device
        .report()
        .map(({ writePointer }) => writePointer)
        .join(),
    );
  }
  await device.close();
}

function equal(a: Uint8Array | string | undefined, b: Uint8Array | string | undefined): boolean {
  if (typeof a === "object" && typeof b === "object") return Buffer.compare(a, b) === 0;
  return a === b;
}

/** A disk that is being cut off may have zeros already where it will end. */
function isOnTheWay(now: Uint8Array | string | undefined, after: Uint8Array | string | undefined): boolean {
  if (typeof now !== "object" || typeof after !== "object") return false;
  return now.length > after.length && Buffer.compare(now.subarray(0, after.length), after) === 0;
}

interface Judgement {
  readonly image: ImageToChange;
  readonly operation: ImageOperation;
  readonly before: Holdings;
  readonly after: Holdings;
}

async function judge(file: Uint8Array, { image, operation, before, after }: Judgement, where: string): Promise<void> {
  const dirty = (new ReferenceImage(file).incompatible & INCOMPATIBLE_DIRTY) !== 0n;
  const problems = dirty ? [] : referenceCounts(file, operation.leaks ?? false);
  if (problems.length > 0) throw new Error(`${where}: ${problems.join("; ")}`);
  const now = await holdingsOf(file, image).catch((error: unknown) => {
    throw new Error(`${where}: the image does not open: ${String(error)}`, { cause: error });
  });
  const names = [...new Set([...before.keys(), ...after.keys(), ...now.keys()])];
  const differing = (than: Holdings): string[] => names.filter((name) => !equal(now.get(name), than.get(name)));
  if (differing(before).length === 0 || differing(after).length === 0) return;
  // A bitmap that was in use when the power went says so; all the rest is of one time.
  const settled = names.filter((name) => !(name.startsWith("bitmap ") && now.get(name) === INCONSISTENT));
  const isAt = (then: Holdings): boolean => settled.every((name) => equal(now.get(name), then.get(name)));
  if (isAt(before) || isAt(after)) return;
  const isOld = (name: string): boolean => equal(now.get(name), before.get(name));
  const isNew = (name: string): boolean => equal(now.get(name), after.get(name));
  const isCut = (name: string): boolean => name === "disk" && isOnTheWay(now.get(name), after.get(name));
  if (operation.inSteps === true && settled.every((name) => isOld(name) || isNew(name) || isCut(name))) return;
  const found = differing(before).filter((name) => differing(after).includes(name));
  throw new Error(`${where}: neither what it was nor what it is to be: ${found.join(", ") || "a mixture"}`);
}

/** Runs `operation` to its end, then judges what every chosen moment of it would have left. Returns how many images were judged. */
export async function cutOperation(
  image: ImageToChange,
  operation: ImageOperation,
  seed: number,
  { cuts }: Effort,
): Promise<number> {
  const random = new Random(seed);
  const memory = memoryStorage(image.bytes);
  const recorder = recordingStorage(new JitteryStorage(memory, random), memory);
  await operation.run(recorder, image);
  const before = await holdingsOf(image.bytes, image);
  const after = await holdingsOf(memory.bytes(), image);
  const problems = referenceCounts(memory.bytes(), false);
  if (problems.length > 0) throw new Error(`${operation.name} leaves: ${problems.join("; ")}`);
  const calls = { initial: image.bytes, changes: recorder.changes, flushes: recorder.flushes };
  const last = recorder.moment() + 1;
  const moments = [...recorder.flushMoments(), ...Array.from({ length: cuts }, () => random.below(last + 1))];
  const ways = moments.flatMap((moment) => CRASH_KINDS.map((kind) => ({ moment, kind })));
  const chosen = random.shuffled(ways).slice(0, cuts);
  for (const { moment, kind } of chosen) {
    const file = crashedFile(calls, moment, kind, random);
    const where = `${operation.name}, seed ${seed}, power cut at ${moment} of ${last}, ${kind}`;
    await judge(file, { image, operation, before, after }, where);
  }
  return chosen.length;
}

const FAULTS: readonly Fault[] = [{ type: "error" }, { type: "torn", bytes: 512 }, { type: "lost" }];

/** Runs `operation` again and again, each time with another storage call failing, and judges what is left. */
export async function failOperation(
  image: ImageToChange,
  operation: ImageOperation,
  seed: number,
  { faults }: Effort,
): Promise<number> {
  const whole = memoryStorage(image.bytes);
  const counting = faultStorage(whole, {});
  await operation.run(counting, image);
  const before = await holdingsOf(image.bytes, image);
  const after = await holdingsOf(whole.bytes(), image);
  const calls = counting.calls();
  const random = new Random(seed);
  const all = Array.from({ length: calls }, (_, index) => index + 1);
  const chosen = random.shuffled(all).slice(0, faults);
  for (const nth of chosen) {
    const fault = random.pick(FAULTS);
    const memory = memoryStorage(image.bytes);
    const storage = faultStorage(memory, { rules: [{ fault, nth }] });
    const where = `${operation.name}, seed ${seed}, ${fault.type} at call ${nth} of ${calls}`;
    await operation.run(storage, image).catch((error: unknown) => {
      if (!isZcowError(error) || error.code === "IMAGE_CORRUPT") throw new Error(where, { cause: error });
    });
    await judge(memory.bytes(), { image, operation, before, after }, where);
  }
  return chosen.length;
}
