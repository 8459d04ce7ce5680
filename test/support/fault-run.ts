import { isZcowError } from "../../src/base/errors.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { type Fault, type FaultPlan, type FaultStorage, faultStorage } from "../../src/storage/fault-storage.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { recordingStorage } from "../../src/storage/recording-storage.js";
import { CRASH_PASSPHRASE } from "./crash-geometries.js";
import { crashedFile } from "./crash-images.js";
import { DiskHistory, judgeCrash, useDisk } from "./crash-run.js";
import { JitteryStorage } from "./jittery-storage.js";
import { OpenToOthers } from "./open-to-others.js";
import { Random } from "./random.js";
import { ReferenceImage } from "./reference-image.js";

/** Runs one workload again and again, each time with another storage call failing, and judges what is left. */

export interface FaultPlanOptions {
  readonly image: Uint8Array;
  readonly seed: number;
  readonly steps: number;
  readonly cacheBytes?: number;
  readonly keepZoneSpace?: boolean;
  /** Some writes are compressed. */
  readonly compressed?: boolean;
  /** Parts of the disk are filled past the device. */
  readonly filled?: boolean;
  /** Random-access requests stay at or above this byte of the disk. Default 0. */
  readonly from?: number;
}

/** How the chosen call fails. `from`: it and every later one. `full`: the disk has room for that many sectors, no more. */
export const FAULT_KINDS = ["error", "torn", "lost", "from", "full"] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

/** Far beyond what any of these runs takes; what takes longer waits for something that never comes. */
const HANG_MS = 20_000;

/** Storage calls that the workload makes when nothing fails. */
export async function countCalls(options: FaultPlanOptions): Promise<number> {
  return (await runWithPlan(options, {})).calls();
}

/** Fails call `nth` (from 1) and judges the image afterwards. Throws with what is wrong. */
export async function runFault(options: FaultPlanOptions, nth: number, kind: FaultKind): Promise<void> {
  const where = `seed ${options.seed}, ${kind} at call ${nth}`;
  let timer: NodeJS.Timeout | undefined;
  const hang = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("no end in sight")), HANG_MS);
  });
  try {
    await Promise.race([runWithPlan(options, planOf(nth, kind)), hang]);
  } catch (error) {
    throw new Error(`${where}: ${describe(error)}`, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

function planOf(nth: number, kind: FaultKind): FaultPlan {
  if (kind === "full") return { space: nth * 512 };
  const fault: Fault = kind === "torn" ? { type: "torn", bytes: 512 } : { type: kind === "from" ? "error" : kind };
  return { rules: [kind === "from" ? { fault, from: nth } : { fault, nth }] };
}

function describe(error: unknown): string {
  const cause = error instanceof Error && error.cause !== undefined ? ` (${describe(error.cause)})` : "";
  return `${String(error)}${cause}`;
}

/** Only clean errors, and only because of the planned fault. */
function expectClean(error: unknown, what: string, storage: FaultStorage): void {
  if (!isZcowError(error)) throw new Error(`${what}: not a ZcowError`, { cause: error });
  if (storage.faults.length === 0) throw new Error(`${what} failed before any fault`, { cause: error });
  if (error.code === "IMAGE_CORRUPT")
    throw new Error(`${what}: an I/O error was taken for corruption`, { cause: error });
}

async function runWithPlan(options: FaultPlanOptions, plan: FaultPlan): Promise<FaultStorage> {
  const random = new Random(options.seed);
  const memory = memoryStorage(options.image);
  const recorder = recordingStorage(memory);
  const storage = faultStorage(recorder, plan);
  const history = new DiskHistory(new ReferenceImage(options.image));
  const onError = (error: unknown, what: string): void => expectClean(error, what, storage);
  try {
    // Odd seeds answer late and out of order.
    const used = options.seed % 2 === 1 ? new JitteryStorage(storage, new Random(options.seed)) : storage;
    const filled = options.filled === true ? new OpenToOthers(used) : undefined;
    const device = await openQcow2(filled ?? used, {
      passphrase: CRASH_PASSPHRASE,
      ...(options.cacheBytes && { cacheBytes: options.cacheBytes }),
      keepZoneSpace: options.keepZoneSpace ?? false,
    });
    await useDisk({
      device,
      history,
      steps: options.steps,
      unaligned: false,
      compressed: options.compressed ?? false,
      filled,
      from: options.from ?? 0,
      position: () => recorder.moment(),
      random,
      onError,
    });
    storage.heal();
    await useDisk({
      device,
      history,
      steps: 5,
      unaligned: false,
      compressed: options.compressed ?? false,
      filled,
      from: options.from ?? 0,
      position: () => recorder.moment(),
      random,
      onError,
    });
    await device.close();
  } catch (error) {
    onError(error, "open or close");
  }
  const calls = { initial: options.image, changes: recorder.changes, flushes: recorder.flushes };
  for (const kind of ["killed", "flushed", "sectors"] as const) {
    const problems = await judgeCrash(crashedFile(calls, recorder.moment(), kind, random), history, recorder.moment());
    if (problems.length > 0) throw new Error(`${kind} afterwards:\n${problems.join("\n")}`);
  }
  return storage;
}
