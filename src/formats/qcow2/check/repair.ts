import { isPromise } from "../../../base/maybe-promise.js";
import { CheckSession, CheckStopped, FindingLog } from "./check-session.js";
import { markSound } from "./header-patch.js";
import { countReferences } from "./image-references.js";
import { mendRefcounts, reportMismatches } from "./mend-refcounts.js";
import { RefcountRebuild } from "./rebuild-refcounts.js";
import { countRefcountBlocks, type RefcountTable, readRefcountTable } from "./refcount-structures.js";

/** Clusters past the end of the file that a rebuild may use: more than the largest refcount table with all its blocks. */
const REBUILD_SPARE_CLUSTERS = 2 ** 21;

/**
 * Compares stored counts with references, mends what `session.fix` allows, and leaves the stored counts in
 * `session.counts`. Returns the refcount table in force.
 */
export async function compareAndMend(session: CheckSession, table: RefcountTable): Promise<RefcountTable> {
  const { tally, fix } = session;
  const before = { ...tally };
  await reportMismatches(session, table, fix === undefined);
  if (fix === undefined) return table;
  if (session.needsRebuild) {
    refuseRebuild(session);
    return rebuild(session);
  }
  if (tally.leaks === 0 && tally.corruptions === 0) return table;
  if (tally.leaks > 0) explainKeptLeaks(session);
  // Mending reports every mismatch once more, with what became of it.
  Object.assign(tally, before);
  await mendRefcounts(session, table, session.unreadReferences === undefined);
  return table;
}

function refuseRebuild(session: CheckSession): void {
  if (session.fix === "leaks") {
    note(session, "ERROR need to rebuild refcount structures");
    throw new CheckStopped("Input/output error");
  }
  if (session.unreadReferences === undefined) return;
  note(
    session,
    `ERROR not rebuilding refcount structures: ${session.unreadReferences}, so clusters in use would be given away; ` +
      "convert the image to save what can be read",
  );
  throw new CheckStopped("Input/output error");
}

function explainKeptLeaks(session: CheckSession): void {
  if (session.unreadReferences === undefined) return;
  note(session, `Not freeing clusters that look leaked: ${session.unreadReferences}, so they may be in use`);
}

async function rebuild(session: CheckSession): Promise<RefcountTable> {
  note(session, "Rebuilding refcount structure");
  const { storage } = session;
  const quiet = new FindingLog(undefined);
  const bare = new CheckSession(storage, session.header, undefined, quiet, REBUILD_SPARE_CLUSTERS);
  await countReferences(bare, false);
  const header = await new RefcountRebuild(bare, session.counts).run();
  const rebuilt = new CheckSession(storage, header, undefined, quiet);
  const table = await readRefcountTable(rebuilt);
  await countReferences(rebuilt, true);
  countRefcountBlocks(rebuilt, table);
  await reportMismatches(rebuilt, table, true);
  if (rebuilt.needsRebuild) note(session, "ERROR rebuilt refcount structure is still broken");
  session.continueAs(rebuilt);
  return table;
}

/** Clears the dirty and corrupt bits when nothing is wrong any more. */
export async function finishRepair(session: CheckSession): Promise<void> {
  const { tally, storage } = session;
  if (session.fix === undefined) return;
  const wait = storage.flush();
  if (isPromise(wait)) await wait;
  if (tally.checkErrors === 0 && tally.corruptions === 0) session.header = await markSound(storage, session.header);
}

/** Copied flags may be mended: always by `all`, and by `leaks` when the counts they follow are known to be right. */
export function mayMendFlags(session: CheckSession): boolean {
  const { checkErrors, corruptions, leaks } = session.tally;
  return session.fix === "all" || (session.fix === "leaks" && checkErrors + corruptions + leaks === 0);
}

function note(session: CheckSession, message: string): void {
  session.report({ kind: "repair", severity: "note", structure: "refcounts" }, () => message);
}
