import { viewOf } from "../../../base/bytes.js";
import { isPromise } from "../../../base/maybe-promise.js";
import type { CheckSession } from "./check-session.js";
import type { EntryToZero } from "./l2-references.js";

/** An entry that reads as zeros without a cluster: the zero flag, or all subclusters zero. */
function zeroEntry(entrySize: number): Uint8Array {
  const entry = new Uint8Array(entrySize);
  const view = viewOf(entry);
  if (entrySize === 16) view.setUint32(8, 0xffff_ffff);
  else view.setUint32(4, 1);
  return entry;
}

/**
 * Sets preallocated zero clusters with impossible offsets to plain zeros, which they read as anyway. Only in
 * clusters that are L2 tables and nothing else; `session.counts` must be complete.
 */
export async function zeroEntries(session: CheckSession, entries: readonly EntryToZero[]): Promise<void> {
  const { clusterSize, l2EntrySize } = session.geometry;
  for (const { tableOffset, index, offset } of entries) {
    const cluster = tableOffset / clusterSize;
    const alone = session.counts.get(cluster) === session.visits.count(cluster);
    session.report(
      {
        kind: "l2-entry",
        severity: alone ? "note" : "corruption",
        repaired: alone,
        structure: "L2 table",
        offset: tableOffset,
      },
      () =>
        `${alone ? "Repairing" : "ERROR"} offset=${offset.toString(16)}: ` +
        "Preallocated cluster is not properly aligned; L2 entry corrupted.",
    );
    if (!alone) continue;
    const wait = session.storage.write(tableOffset + index * l2EntrySize, zeroEntry(l2EntrySize));
    if (isPromise(wait)) await wait;
    session.tally.corruptionsFixed++;
  }
}
