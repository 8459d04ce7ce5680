import { isZcowError, ZcowError } from "../../../base/errors.js";
import type { Storage } from "../../../storage/storage.js";
import type { Qcow2Header } from "../header.js";
import { readHeader } from "../header-read.js";
import { MAX_FILE_CLUSTERS } from "./check-limits.js";
import type { CheckFinding, CheckResult } from "./check-result.js";
import { CheckSession, CheckStopped, FindingLog, type RepairMode } from "./check-session.js";
import { CopiedFlags } from "./copied-flags.js";
import { zeroEntries } from "./entry-repair.js";
import { clearUnknownAutoclear } from "./header-patch.js";
import { countReferences } from "./image-references.js";
import { countRefcountBlocks, readRefcountTable } from "./refcount-structures.js";
import { compareAndMend, finishRepair, mayMendFlags } from "./repair.js";
import { checkZoneTable } from "./zone-table.js";

/** What a check does beside looking. */
export interface CheckOptions {
  /** `leaks`: free leaked clusters, mend copied flags when nothing else is wrong. `all`: mend whatever can be mended. */
  readonly repair?: "leaks" | "all";
  /** Receives each finding as it is made, over the check, the repair and the check after it. */
  readonly onFinding?: (finding: CheckFinding) => void;
}

/**
 * Checks the metadata of a qcow2 image: references against refcounts, copied flags, reserved bits, alignment,
 * snapshots, bitmaps, the write-pointer table of zoned images. Data are not read; a data file is not opened.
 *
 * With `repair`, mends and then checks again; `storage` must be writable, and nobody else may use the image meanwhile.
 * A failing storage is part of the result (`checkErrors`, `failure`), not an exception.
 * Throws the `QCOW2_*` and `ZONED_*` codes for headers beyond checking, `CHECK_LIMIT` for hostile images,
 * `READ_ONLY` for a repair of read-only storage.
 */
export async function checkQcow2(storage: Storage, options: CheckOptions = {}): Promise<CheckResult> {
  const { repair, onFinding } = options;
  if (repair !== undefined && !storage.capabilities.writable) {
    throw new ZcowError("READ_ONLY", `${storage.name} is open for reading only and cannot be repaired`, {
      data: { path: storage.name },
    });
  }
  const log = new FindingLog(onFinding);
  const header = await readHeader(storage, { mode: "check", writable: repair !== undefined });
  const first = await runCheck(storage, header, repair, log);
  if (first.corruptionsFixed === 0 && first.leaksFixed === 0) return first;
  const again = await runCheck(storage, await readHeader(storage, { mode: "check" }), undefined, log);
  return { ...again, corruptionsFixed: first.corruptionsFixed, leaksFixed: first.leaksFixed };
}

/** One check, and the repair that belongs to it. */
async function runCheck(storage: Storage, header: Qcow2Header, fix: RepairMode, log: FindingLog): Promise<CheckResult> {
  let session: CheckSession | undefined;
  try {
    session = new CheckSession(storage, header, fix, log);
    await checkImage(session);
    return session.result(undefined);
  } catch (error) {
    if (session === undefined) throw error;
    if (error instanceof CheckStopped) return session.result(error.reason);
    if (!isZcowError(error) || error.category !== "storage") throw error;
    session.report({ kind: "io-error", severity: "error", structure: "file" }, () => `ERROR: ${error.message}`);
    return session.result(REASONS[error.errno] ?? "Input/output error");
  }
}

const REASONS: Readonly<Record<string, string>> = {
  ENOSPC: "No space left on device",
  EFBIG: "File too large",
  EACCES: "Permission denied",
};

async function checkImage(session: CheckSession): Promise<void> {
  if (session.fileLength / session.geometry.clusterSize > MAX_FILE_CLUSTERS) {
    session.tally.checkErrors++;
    throw new CheckStopped("File too large");
  }
  const stored = await readRefcountTable(session);
  const walk = await countReferences(session, true);
  countRefcountBlocks(session, stored);
  if (session.fix !== undefined) session.header = await clearUnknownAutoclear(session.storage, session.header);
  await zeroEntries(session, walk.toZero);
  const table = await compareAndMend(session, stored);
  if (session.flagsUncertain && !session.blocksUnreadable)
    await new CopiedFlags(session, table, mayMendFlags(session)).check();
  await checkZoneTable(session);
  await finishRepair(session);
}
