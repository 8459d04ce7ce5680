import { isPromise } from "../../../base/maybe-promise.js";
import { setRefcount } from "../refcount-entries.js";
import type { CheckSession } from "./check-session.js";
import { type Comparison, compareRefcounts, type Mismatch, type StoredBlock } from "./compare-refcounts.js";
import type { RefcountTable } from "./refcount-structures.js";

/**
 * Reporting, and mending in place, of stored counts that are not the number of references.
 *
 * | on disk during a repair | if it stops here |
 * |---|---|
 * | counts raised, block by block, then a flush | nothing that is in use can be handed out again |
 * | counts lowered, block by block, then a flush | leaks that remain are only leaks |
 */

export function reportMismatch(session: CheckSession, mismatch: Mismatch, repaired: boolean): void {
  const { cluster, stored, storedText, references } = mismatch;
  const tooLow = stored < references;
  const word = repaired ? "Repairing" : tooLow ? "ERROR" : "Leaked";
  session.report(
    {
      kind: tooLow ? "refcount-too-low" : "leak",
      severity: repaired ? "note" : tooLow ? "corruption" : "leak",
      repaired,
      structure: `cluster ${cluster}`,
      offset: cluster * session.geometry.clusterSize,
    },
    () => `${word} cluster ${cluster} refcount=${storedText} reference=${references}`,
  );
}

/** Reports all mismatches. With `adopt`, `session.counts` holds the stored counts of referenced clusters afterwards. */
export async function reportMismatches(session: CheckSession, table: RefcountTable, adopt: boolean): Promise<void> {
  await compareRefcounts(session, table, {
    mismatch(mismatch) {
      // A count that a block lacks altogether can only be given by new blocks.
      if (mismatch.stored === 0) session.needsRebuild = true;
      reportMismatch(session, mismatch, false);
      if (adopt && mismatch.references > 0) session.counts.set(mismatch.cluster, mismatch.stored);
    },
  });
}

/**
 * Mends what `session.fix` allows, reports the rest again, and brings the stored counts into `session.counts`.
 * `mayFree`: leaked clusters may be freed.
 */
export async function mendRefcounts(session: CheckSession, table: RefcountTable, mayFree: boolean): Promise<void> {
  const mayRaise = session.fix === "all";
  if (mayRaise) await compareRefcounts(session, table, new BlockMending(session, (found) => raise(session, found)));
  await flush(session);
  const lowering = new BlockMending(session, (mismatch) => {
    const tooLow = mismatch.stored < mismatch.references;
    const repaired = !tooLow && mayFree;
    reportMismatch(session, mismatch, repaired);
    if (repaired) session.tally.leaksFixed++;
    else if (mismatch.references > 0) session.counts.set(mismatch.cluster, mismatch.stored);
    return repaired;
  });
  await compareRefcounts(session, table, lowering);
  await flush(session);
}

function raise(session: CheckSession, mismatch: Mismatch): boolean {
  if (mismatch.stored >= mismatch.references) return false;
  reportMismatch(session, mismatch, true);
  session.tally.corruptionsFixed++;
  return true;
}

/** Writes a block back when a decision changed one of its counts. */
class BlockMending implements Comparison {
  readonly #session: CheckSession;
  readonly #decide: (mismatch: Mismatch) => boolean;
  #changed = false;

  constructor(session: CheckSession, decide: (mismatch: Mismatch) => boolean) {
    this.#session = session;
    this.#decide = decide;
  }

  mismatch(mismatch: Mismatch, block: StoredBlock): void {
    if (!this.#decide(mismatch) || block.offset === undefined) return;
    const { refcountsPerBlock, refcountOrder } = this.#session.geometry;
    setRefcount(block.bytes, mismatch.cluster - block.index * refcountsPerBlock, refcountOrder, mismatch.references);
    this.#changed = true;
  }

  async blockDone(block: StoredBlock): Promise<void> {
    if (!this.#changed || block.offset === undefined) return;
    this.#changed = false;
    const wait = this.#session.storage.write(block.offset, block.bytes);
    if (isPromise(wait)) await wait;
  }
}

async function flush(session: CheckSession): Promise<void> {
  const wait = session.storage.flush();
  if (isPromise(wait)) await wait;
}
