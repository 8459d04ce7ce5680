import { isZcowError } from "../../src/base/errors.js";
import type { BlockDevice } from "../../src/block/block-device.js";
import { isZonedDevice } from "../../src/block/zoned-device.js";
import { checkQcow2 } from "../../src/formats/qcow2/check/check.js";
import { type CheckResult, checkExitCode } from "../../src/formats/qcow2/check/check-result.js";
import { readHeader } from "../../src/formats/qcow2/header-read.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { listSnapshots } from "../../src/jobs/snapshot.js";
import { borrowedStorage } from "../../src/storage/borrowed-storage.js";
import { type Fault, faultStorage } from "../../src/storage/fault-storage.js";
import { type MemoryStorage, memoryStorage } from "../../src/storage/memory-storage.js";
import { recordingStorage } from "../../src/storage/recording-storage.js";
import { CRASH_PASSPHRASE } from "./crash-geometries.js";
import { CRASH_KINDS, crashedFile } from "./crash-images.js";
import { damageOne, damageTargets } from "./metadata-damage.js";
import type { ImageToChange } from "./operation-crash.js";
import type { Random } from "./random.js";
import { ReferenceImage } from "./reference-image.js";
import { referenceCounts } from "./reference-snapshots.js";

/**
 * Damages an image at random, repairs it, and does so again with the power cut and with storage calls failing on the way. Nothing that
 * could be read before may be lost, at any moment, and no write pointer may be made up without being told.
 */

const PIECE = 4096;

/** One state of the disk: the disk itself or a snapshot. Bytes piece by piece, undefined where reading fails. */
interface DiskState {
  readonly pieces: readonly (Uint8Array | undefined)[];
  /** Write pointers, of zoned disks. */
  readonly pointers: readonly number[] | undefined;
}

/** All states by their names; empty when the image cannot be opened. */
type States = ReadonlyMap<string, DiskState>;

/** What an image holds as far as it can be read. */
async function statesOf(file: Uint8Array, image: ImageToChange): Promise<States> {
  const states = new Map<string, DiskState>();
  const disk = await stateOf(file, image, undefined);
  if (disk === undefined) return states;
  states.set("disk", disk);
  const snapshots = await listSnapshots(memoryStorage(file), { format: "qcow2" }).catch(onlyZcow);
  for (const { id, name } of snapshots ?? []) {
    const state = await stateOf(file, image, id);
    if (state !== undefined) states.set(`snapshot ${name}`, state);
  }
  return states;
}

function onlyZcow(error: unknown): undefined {
  if (!isZcowError(error)) throw error;
}

async function stateOf(
  file: Uint8Array,
  { files }: ImageToChange,
  snapshot: string | undefined,
): Promise<DiskState | undefined> {
  const device = await openQcow2(memoryStorage(file), {
    ...files?.(),
    readOnly: true,
    passphrase: CRASH_PASSPHRASE,
    ...(snapshot === undefined ? {} : { snapshot }),
  }).catch(onlyZcow);
  if (device === undefined) return undefined;
  const pieces: (Uint8Array | undefined)[] = [];
  for (let at = 0; at < device.size; at += PIECE) {
    const piece = new Uint8Array(Math.min(PIECE, device.size - at));
    const read = async (): Promise<Uint8Array> => {
      await device.read(at, piece);
      return piece;
    };
    pieces.push(await read().catch(onlyZcow));
  }
  const pointers = isZonedDevice(device) ? device.report().map(({ writePointer }) => writePointer) : undefined;
  await device.close();
  return { pieces, pointers };
}

/** The disk as the tables have it, read without the code under test: of images that the product refuses to open, too. */
function naivePieces(file: Uint8Array): (Uint8Array | undefined)[] {
  const image = naively(() => new ReferenceImage(file));
  if (image === undefined) return [];
  const count = Math.min(1024, Math.ceil(image.size / PIECE));
  return Array.from({ length: count }, (_, index) => {
    const at = index * PIECE;
    const length = Math.min(PIECE, image.size - at);
    return naively(() => (isHidden(image, at + length) ? undefined : image.readGuest(at, length)));
  });
}

/** Behind a pointer that may be right nothing is read, wherever it should be. */
function isHidden(image: ReferenceImage, end: number): boolean {
  if (image.zoned === undefined) return false;
  const zone = image.zone(Math.floor((end - 1) / image.zoned.zoneSize));
  return !zone.conventional && zone.writePointer >= zone.start && zone.writePointer < end;
}

/** The naive reader knows no damage, and fails at it in ways of its own. */
function naively<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

function same(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return a !== undefined && b !== undefined && Buffer.compare(a, b) === 0;
}

/** Names of the pieces that are as they were in `good` before, and not after. */
function lost(good: States, before: States, after: States): string[] {
  const names: string[] = [];
  for (const [name, { pieces }] of good) {
    const was = before.get(name);
    const is = after.get(name);
    // A snapshot that led nowhere read as zeros, some of which it has to have.
    const wasWhole = pieces.every((piece, index) => same(piece, was?.pieces[index]));
    if (is === undefined && !wasWhole && name !== "disk") continue;
    for (const [index, piece] of pieces.entries()) {
      if (same(piece, was?.pieces[index]) && !same(piece, is?.pieces[index])) names.push(`${name} at ${index * PIECE}`);
    }
  }
  return names;
}

/** Names of the pieces that read differently than before, whatever they were; repairs of leaks change none. */
function changed(before: States, after: States): string[] {
  const names: string[] = [];
  for (const [name, { pieces, pointers }] of before) {
    const is = after.get(name);
    if (String(is?.pointers) !== String(pointers)) names.push(`pointers of the ${name}`);
    for (const [index, piece] of pieces.entries()) {
      if (piece !== undefined && !same(piece, is?.pieces[index])) names.push(`${name} at ${index * PIECE}`);
    }
  }
  return names;
}

/** Write pointers that are neither as stored nor told of. */
function inventedPointers(good: States, before: States, after: States, told: ReadonlySet<string>): string[] {
  const is = after.get("disk")?.pointers ?? [];
  const was = before.get("disk")?.pointers;
  const meant = good.get("disk")?.pointers;
  if (told.has("zoned extension")) return [];
  return is.flatMap((pointer, zone) => {
    const isKnown = was === undefined ? pointer === meant?.[zone] : pointer === was[zone];
    return isKnown || told.has(`zone ${zone}`) ? [] : [`zone ${zone}: ${pointer}, was ${was?.[zone]}`];
  });
}

/** The structures of the zones that a repair speaks of. */
function toldOfZones({ findings }: CheckResult): string[] {
  return findings
    .filter(({ kind, repaired, structure }) => kind === "zone" || repaired || structure === "zoned extension")
    .map(({ structure }) => structure);
}

/** Corruptions that can lose data. Counts are lowered before the flags that follow from them are set: those cannot. */
function danger({ corruptions, findings }: CheckResult): number {
  const harmless = findings.filter(({ kind, severity, message }) => {
    return kind === "copied-flag" && severity === "corruption" && message.includes("refcount=1");
  });
  return corruptions - harmless.length;
}

const text = (result: CheckResult): string => result.findings.map(({ message }) => message).join("\n");

export interface RepairPlan {
  readonly image: ImageToChange;
  readonly random: Random;
  readonly mode: "leaks" | "all";
  readonly cuts: number;
  readonly faults: number;
  /** Receives each image that a repair made sound. */
  readonly onSound?: (file: Uint8Array, where: string) => Promise<void>;
}

export interface RepairTally {
  /** Rounds in which the image was sound afterwards. */
  sound: number;
  /** Rounds in which it was not, and the repair said why. */
  hopeless: number;
  /** Images after power cuts and failing calls that were judged. */
  judged: number;
}

interface Round extends RepairPlan {
  readonly where: string;
  readonly damaged: Uint8Array;
  readonly good: States;
  readonly before: States;
  /** What the check counted before. */
  readonly danger: number;
  /** What the whole repair ended with. */
  readonly exitCode: number;
  readonly told: Set<string>;
  /** What the whole repair said. */
  readonly story: string;
}

class RepairFault extends Error {}

function fail(where: string, what: string): never {
  throw new RepairFault(`${where}: ${what}`);
}

async function check(storage: MemoryStorage, repair?: "leaks" | "all"): Promise<CheckResult | undefined> {
  return checkQcow2(storage, repair === undefined ? {} : { repair }).catch(onlyZcow);
}

/** What holds of the image during and after any repair. */
async function judgeStates(file: Uint8Array, round: Round, where: string): Promise<void> {
  const { good, before, image, mode, told, story } = round;
  const after = await statesOf(file, image);
  if (before.has("disk") && !after.has("disk")) {
    const why = await readHeader(memoryStorage(file)).then(() => "", String);
    fail(where, `it could be opened before: ${why}\n${story}`);
  }
  const gone = lost(good, before, after);
  if (gone.length > 0) fail(where, `lost: ${gone.join(", ")}\n${story}`);
  if (after.has("disk")) {
    const invented = inventedPointers(good, before, after, told);
    if (invented.length > 0) fail(where, `pointers made up: ${invented.join(", ")}`);
  }
  const different = mode === "leaks" ? changed(before, after) : [];
  if (different.length > 0) fail(where, `changed: ${different.join(", ")}`);
}

/** Judges an image in which a repair was interrupted: it is no worse, and the next repair ends as the whole one did. */
async function judgeInterrupted(file: Uint8Array, round: Round, where: string): Promise<void> {
  await judgeStates(file, round, where);
  const storage = memoryStorage(file);
  const again = await check(storage, round.mode);
  if (again !== undefined) for (const structure of toldOfZones(again)) round.told.add(structure);
  if (round.exitCode === 0 && (again === undefined || checkExitCode(again) !== 0)) {
    fail(where, `the next repair fails: ${again === undefined ? "" : text(again)}`);
  }
  const left = again === undefined ? 0 : danger(again);
  if (left > round.danger) fail(where, `${left} corruptions, ${round.danger} before: ${text(again as CheckResult)}`);
  await judgeStates(storage.bytes(), round, `${where}, repaired again`);
}

/** One damaged image: repaired as a whole, then with cuts and faults. */
async function repairRound(plan: RepairPlan, good: States, where: string, tally: RepairTally): Promise<void> {
  const { image, random, mode } = plan;
  const damaged = image.bytes.slice();
  const targets = damageTargets(damaged);
  for (let count = random.pick([1, 1, 1, 2, 3]); count > 0; count--) damageOne(damaged, targets, random);
  const before = await statesOf(damaged, image);
  const found = await check(memoryStorage(damaged));
  const memory = memoryStorage(damaged);
  const recorder = recordingStorage(memory);
  const result = await checkQcow2(recorder, { repair: mode }).catch(onlyZcow);
  const exitCode = result === undefined ? 1 : checkExitCode(result);
  const told = new Set(result === undefined ? [] : toldOfZones(result));
  const isWhole = found !== undefined && checkExitCode(found) !== 1;
  const round: Round = {
    ...plan,
    where,
    damaged,
    good,
    before,
    exitCode,
    told,
    story: result === undefined ? "" : text(result),
    danger: isWhole ? danger(found) : Number.POSITIVE_INFINITY,
  };
  await judgeStates(memory.bytes(), round, where);
  if (exitCode === 0) {
    tally.sound++;
    await judgeSound(memory.bytes(), round, where);
  } else {
    tally.hopeless++;
    if (result !== undefined && mode === "all") explained(result, where);
  }
  const calls = { initial: damaged, changes: recorder.changes, flushes: recorder.flushes };
  if (recorder.changes.length === 0) return;
  const last = recorder.moment() + 1;
  for (let cut = 0; cut < plan.cuts; cut++) {
    const moment = random.below(last + 1);
    const kind = random.pick(CRASH_KINDS);
    await judgeInterrupted(
      crashedFile(calls, moment, kind, random),
      round,
      `${where}, cut at ${moment} of ${last}, ${kind}`,
    );
    tally.judged++;
  }
  for (let fault = 0; fault < plan.faults; fault++) tally.judged += await repairWithFault(round);
}

const FAULTS: readonly Fault[] = [{ type: "error" }, { type: "torn", bytes: 512 }, { type: "error", code: "NO_SPACE" }];

async function repairWithFault(round: Round): Promise<number> {
  const { random, damaged, mode } = round;
  const counting = faultStorage(memoryStorage(damaged), {});
  await checkQcow2(counting, { repair: mode }).catch(onlyZcow);
  const nth = 1 + random.below(counting.calls());
  const fault = random.pick(FAULTS);
  const memory = memoryStorage(damaged);
  const storage = faultStorage(memory, { rules: [random.chance(0.5) ? { fault, nth } : { fault, from: nth }] });
  const result = await checkQcow2(storage, { repair: mode }).catch(onlyZcow);
  const where = `${round.where}, ${fault.type} at call ${nth} of ${counting.calls()}`;
  if (result !== undefined) {
    // What could not be read, such as counts, may have been made anew; what could not be written is not there.
    const isUnwritten = storage.faults.some(({ kind }) => kind !== "read");
    if (checkExitCode(result) === 0 && isUnwritten) fail(where, `the repair calls the image sound: ${text(result)}`);
    if (checkExitCode(result) === 0) await judgeSound(memory.bytes(), round, where);
    for (const structure of toldOfZones(result)) round.told.add(structure);
  }
  await judgeInterrupted(memory.bytes(), round, where);
  return 1;
}

/** An image that a repair called sound: so must be an independent walk, and what the naive reader could make of it is there. */
async function judgeSound(file: Uint8Array, round: Round, where: string): Promise<void> {
  const { good, image, damaged, story } = round;
  const problems = naively(() => referenceCounts(file, true)) ?? ["the naive reader fails"];
  if (problems.length > 0) fail(where, `called sound: ${problems.join("; ")}`);
  const after = await statesOf(file, image);
  if (!after.has("disk")) fail(where, "called sound, and cannot be opened");
  // What lies behind the image, or beside it, the naive reader does not know.
  if (Object.keys(image.files?.() ?? {}).length === 0) {
    const naive = new Map([["disk", { pieces: naivePieces(damaged), pointers: undefined }]]);
    const gone = lost(good, naive, after);
    if (gone.length > 0) fail(where, `lost of what the tables said: ${gone.join(", ")}`);
  }
  await expectWritable(file, image, `${where}\n${story}`);
  await round.onSound?.(file, where);
}

/** Compressed data may be damaged where no check sees it, and cannot be copied then. */
async function writeAll(device: BlockDevice): Promise<void> {
  try {
    await device.write(0, new Uint8Array(device.size).fill(9));
  } catch (error) {
    if (!isZcowError(error, "COMPRESSED_DATA")) throw error;
  }
}

/** What was repaired takes writes, and is sound after them. */
async function expectWritable(file: Uint8Array, image: ImageToChange, where: string): Promise<void> {
  // The data file is the only one there is.
  if (image.files?.().dataFile !== undefined) return;
  const storage = memoryStorage(file);
  const device = await openQcow2(borrowedStorage(storage), { ...image.files?.(), passphrase: CRASH_PASSPHRASE });
  const bytes = new Uint8Array(8192).fill(9);
  // Zones that begin or end where they should not can be read only.
  if (device.readOnly) {
    await device.close();
    return;
  }
  if (isZonedDevice(device)) {
    for (const { type, state, start, writePointer, capacity } of device.report()) {
      if (type === "conventional") await device.write(start, bytes);
      else if (state !== "full")
        await device.append(start, bytes.subarray(0, Math.min(8192, start + capacity - writePointer)));
    }
  } else await writeAll(device);
  await device.close();
  const result = await checkQcow2(storage);
  // Entries behind the end of the disk may refer to clusters that it had a share in.
  if (danger(result) > 0 || result.checkErrors > 0) fail(where, `after writing: ${text(result)}`);
}

/** A repair that does not end sound says what it left. */
function explained(result: CheckResult, where: string): void {
  if (result.findings.every(({ message }) => message === "")) fail(where, "not repaired, and nothing said");
}

/** Many damaged images, one after the other. Throws with what is wrong with the first that is not as it must be. */
export async function repairRandomDamage(plan: RepairPlan, rounds: number): Promise<RepairTally> {
  const good = await statesOf(plan.image.bytes, plan.image);
  const tally = { sound: 0, hopeless: 0, judged: 0 };
  for (let round = 0; round < rounds; round++) {
    const where = `seed ${plan.random.seed} round ${round}, repair ${plan.mode}`;
    try {
      await repairRound(plan, good, where, tally);
    } catch (error) {
      if (error instanceof RepairFault) throw error;
      throw new Error(where, { cause: error });
    }
  }
  return tally;
}
