import { isZcowError, ZcowError } from "../../../base/errors.js";
import type { Storage } from "../../../storage/storage.js";
import { readUnresolvedHeader } from "../header-read.js";
import { MAX_FILE_CLUSTERS } from "./check-limits.js";
import { CheckProgress } from "./check-progress.js";
import type { CheckFinding, CheckResult } from "./check-result.js";
import { CheckSession, CheckStopped, FindingLog, type RepairMode } from "./check-session.js";
import { CopiedFlags } from "./copied-flags.js";
import { zeroEntries } from "./entry-repair.js";
import { clearUnknownAutoclear, markSound } from "./header-patch.js";
import { countReferences } from "./image-references.js";
import { withoutWildTable } from "./mend/mend-header.js";
import { mendMapping } from "./mend/mend-mapping.js";
import { mendStructures } from "./mend/mend-structures.js";
import { countRefcountBlocks, readRefcountTable } from "./refcount-structures.js";
import { compareAndMend, finishRepair, mayMendFlags } from "./repair.js";
import { reportSharedPlaces } from "./shared-places.js";
import { checkTableAlone, checkZoneTable, reportZonedFault } from "./zone-table.js";
import { diagnoseZones, type ZonedDiagnosis } from "./zoned-diagnosis.js";
import { repairZones } from "./zoned-repair.js";

/** What a check does beside looking. */
export interface CheckOptions {
  /** `leaks`: free leaked clusters, mend copied flags when nothing else is wrong. `all`: mend whatever can be mended. */
  readonly repair?: "leaks" | "all";
  /**
   * With `all`: false leaves tables and entries as they are and mends refcounts, flags and write pointers only, as the opening
   * of an image does that was not closed. Default true.
   */
  readonly structures?: boolean;
  /** Receives each finding as it is made, over the check, the repair and the check after it. */
  readonly onFinding?: (finding: CheckFinding) => void;
  /**
   * Receives how far it is, from 0 to 1, never less than before. A repair goes over the image an unknown number of times, so with
   * `repair` the later walks get ever smaller shares. 1 comes once, at the end; not at all when the check throws.
   */
  readonly onProgress?: (done: number) => void;
}

/**
 * Checks the metadata of a qcow2 image: references against refcounts, copied flags, reserved bits, alignment,
 * snapshots, bitmaps, the write-pointer table of zoned images. Data are not read; a data file is not opened.
 *
 * With `repair`, mends and then checks again; `storage` must be writable, and nobody else may use the image meanwhile.
 * A failing storage is part of the result (`checkErrors`, `failure`), not an exception.
 * Damaged zoned metadata of the header are findings.
 * Throws the `QCOW2_*` codes for headers beyond checking, `CHECK_LIMIT` for hostile images,
 * `READ_ONLY` for a repair of read-only storage.
 */
export async function checkQcow2(storage: Storage, options: CheckOptions = {}): Promise<CheckResult> {
  const { repair, onFinding } = options;
  requireRepairMode(repair);
  if (repair !== undefined && !storage.capabilities.writable) {
    throw new ZcowError("READ_ONLY", `${storage.name} is open for reading only and cannot be repaired`, {
      data: { path: storage.name },
    });
  }
  const progress = options.onProgress && new CheckProgress(options.onProgress);
  const result = await checkAndMend(storage, options, { log: new FindingLog(onFinding), progress });
  progress?.finish();
  return result;
}

/** Who is told what. */
interface Listeners {
  readonly log: FindingLog;
  readonly progress: CheckProgress | undefined;
}

async function checkAndMend(storage: Storage, options: CheckOptions, listeners: Listeners): Promise<CheckResult> {
  const { repair } = options;
  const mayMend = repair === "all" && options.structures !== false;
  const before = mayMend ? await mendStructures(storage, listeners.log, attempt) : undefined;
  if (before?.failure !== undefined) return before.session.result(before.failure);
  const walks = await runRepair(storage, repair, mayMend, listeners);
  const last = walks.at(-1) as Pass;
  const { passes, failure } = await mendZones(last, listeners);
  const all = [...walks.slice(0, -1).map(({ result }) => result), ...passes];
  const corruptionsFixed = all.reduce((sum, result) => sum + result.corruptionsFixed, before?.fixed ?? 0);
  const leaksFixed = all.reduce((sum, result) => sum + result.leaksFixed, 0);
  if (corruptionsFixed === 0 && leaksFixed === 0) return all.at(-1) as CheckResult;
  const { session, result } = await runCheck(storage, undefined, listeners);
  const total = { ...result, corruptionsFixed, leaksFixed, failure: failure ?? result.failure };
  if (total.failure !== undefined || result.checkErrors > 0 || result.corruptions > 0) return total;
  // A read that failed once kept the repair from it.
  return { ...total, failure: await attempt(session, async () => void (await markSound(storage, session.header))) };
}

/** Callers without types can ask for anything; a repair that nobody described must not begin. */
function requireRepairMode(repair: string | undefined): void {
  if (repair === undefined || repair === "leaks" || repair === "all") return;
  throw new ZcowError("INVALID_ARGUMENT", `repair '${repair}' is neither 'leaks' nor 'all'`, {
    data: { option: "repair", value: repair },
  });
}

/** One walk over the image and what came of it. */
interface Pass {
  readonly session: CheckSession;
  readonly diagnosis: ZonedDiagnosis;
  readonly result: CheckResult;
  /** Tables and entries were put right, and the walk ended there. */
  readonly isMended: boolean;
}

/** What was mended can uncover more: an entry that nobody could follow may lead to a cluster that another one has. */
const MAX_MENDING_WALKS = 4;

/** A check with its repair, after walks in which tables and entries had to be put right first. */
async function runRepair(storage: Storage, fix: RepairMode, mayMend: boolean, listeners: Listeners): Promise<Pass[]> {
  const passes: Pass[] = [];
  for (let walk = 0; ; walk++) {
    const pass = await runCheck(storage, fix, listeners, mayMend && walk < MAX_MENDING_WALKS);
    passes.push(pass);
    if (!pass.isMended || pass.result.failure !== undefined) return passes;
  }
}

/** One check, and the repair that belongs to it. With `mayMend`, damaged tables are put right, and nothing else then. */
async function runCheck(storage: Storage, fix: RepairMode, listeners: Listeners, mayMend = false): Promise<Pass> {
  const { header: stored, source } = await readUnresolvedHeader(storage, {
    mode: "check",
    writable: fix !== undefined,
  });
  const header = fix === "all" ? withoutWildTable(stored) : stored;
  const diagnosis = await diagnoseZones(header, source);
  const session = new CheckSession(storage, { ...header, zoned: diagnosis.zoned }, fix, listeners.log);
  session.progress = listeners.progress;
  session.progress?.startWalk(fix === undefined);
  let isMended = false;
  const failure = await attempt(session, async () => {
    isMended = await checkImage(session, diagnosis, mayMend);
  });
  return { session, diagnosis, isMended, result: session.result(failure) };
}

/** Why `step` could not be done, as the stock tool words it. */
async function attempt(session: CheckSession, step: () => Promise<void>): Promise<string | undefined> {
  try {
    await step();
    return undefined;
  } catch (error) {
    if (error instanceof CheckStopped) return error.reason;
    if (!isZcowError(error) || error.category !== "storage") throw error;
    session.report({ kind: "io-error", severity: "error", structure: "file" }, () => `ERROR: ${error.message}`);
    session.storageFailure = REASONS[error.errno] ?? "Input/output error";
    return session.storageFailure;
  }
}

/** The results of all passes, and what the storage refused: then nobody knows what of the repair is durable. */
interface MendedZones {
  readonly passes: readonly CheckResult[];
  readonly failure?: string | undefined;
}

/**
 * Where only the zoned metadata of the image is damaged any more: puts it right, and goes over the image once more to
 * free what the damage has left.
 */
async function mendZones({ session, diagnosis, result }: Pass, listeners: Listeners): Promise<MendedZones> {
  const remedy = diagnosis.remedy ?? (session.zoneTableShared ? diagnosis.zoned : undefined);
  if (session.fix !== "all" || remedy === undefined || result.failure !== undefined) {
    return { passes: [result], failure: session.storageFailure };
  }
  if (result.checkErrors > 0 || result.corruptions > session.zoneFaults) {
    noteZones(session, "Not repairing the zoned metadata while other damage is left");
    return { passes: [session.result(undefined)] };
  }
  try {
    const failure = await attempt(session, () => repairZones(session, remedy));
    if (failure !== undefined) return { passes: [session.result(failure)], failure };
  } catch (error) {
    if (!isZcowError(error)) throw error;
    noteZones(session, `Not repairing the zoned metadata: ${error.message}`);
    return { passes: [session.result(undefined)] };
  }
  noteZones(session, "Repairing the zoned metadata, with a write-pointer table in clusters of its own");
  session.tally.corruptionsFixed += session.zoneFaults;
  const next = await runCheck(session.storage, "all", listeners);
  return { passes: [session.result(undefined), next.result], failure: next.session.storageFailure };
}

function noteZones(session: CheckSession, message: string): void {
  session.report({ kind: "repair", severity: "note", structure: "zoned extension" }, () => message);
}

const REASONS: Readonly<Record<string, string>> = {
  ENOSPC: "No space left on device",
  EFBIG: "File too large",
  EACCES: "Permission denied",
};

async function checkImage(session: CheckSession, diagnosis: ZonedDiagnosis, mayMend: boolean): Promise<boolean> {
  if (session.fileLength / session.geometry.clusterSize > MAX_FILE_CLUSTERS) {
    session.tally.checkErrors++;
    throw new CheckStopped("File too large");
  }
  reportZones(session, diagnosis);
  const stored = await readRefcountTable(session);
  const walk = await countReferences(session, true);
  reportSharedPlaces(session);
  if (mayMend && session.mappingDamaged) {
    session.header = await clearUnknownAutoclear(session.storage, session.header);
    await mendMapping(session);
    return true;
  }
  countRefcountBlocks(session, stored);
  checkTableAlone(session);
  if (session.fix !== undefined) session.header = await clearUnknownAutoclear(session.storage, session.header);
  await zeroEntries(session, walk.toZero);
  const table = await compareAndMend(session, stored);
  if (session.flagsUncertain && !session.blocksUnreadable)
    await new CopiedFlags(session, table, mayMendFlags(session)).check();
  await checkZoneTable(session);
  await finishRepair(session);
  return false;
}

/** What is wrong with the zoned metadata of the header. A table that nobody can find must not be given away as a leak. */
function reportZones(session: CheckSession, { faults, remedy, obstacle }: ZonedDiagnosis): void {
  for (const fault of faults) reportZonedFault(session, fault, obstacle);
  const isLost = faults.length > 0 && session.header.zoned === undefined;
  const isMade = remedy !== undefined && session.fix === "all";
  if (isLost && !isMade) session.unreadReferences = "the write-pointer table cannot be found";
}
