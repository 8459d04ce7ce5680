import { isPromise } from "../../../base/maybe-promise.js";
import type { CheckSession } from "../check/check-session.js";
import { NO_BLOCK, type RefcountTable } from "../check/refcount-structures.js";
import { setRefcount } from "../refcount-entries.js";

/**
 * Adds `changes`, by cluster, to the counts in memory and in the refcount blocks that `table` names, block by block. Clusters without a
 * block have count 0 and must stay so. Not flushed.
 */
export async function changeCounts(
  session: CheckSession,
  table: RefcountTable,
  changes: ReadonlyMap<number, number>,
): Promise<void> {
  const { counts, storage, geometry } = session;
  const { refcountsPerBlock, refcountOrder, clusterSize } = geometry;
  const ascending = [...changes.keys()].toSorted((a, b) => a - b);
  const bytes = new Uint8Array(clusterSize);
  for (let at = 0; at < ascending.length; ) {
    const index = Math.floor((ascending[at] as number) / refcountsPerBlock);
    const offset = table.blockOffset(index) ?? NO_BLOCK;
    if (offset !== NO_BLOCK) {
      const read = storage.read(offset, bytes);
      if (isPromise(read)) await read;
    }
    const end = (index + 1) * refcountsPerBlock;
    for (; at < ascending.length && (ascending[at] as number) < end; at++) {
      const cluster = ascending[at] as number;
      const count = counts.get(cluster) + (changes.get(cluster) ?? 0);
      setRefcount(bytes, cluster - index * refcountsPerBlock, refcountOrder, count);
      counts.set(cluster, count);
    }
    if (offset === NO_BLOCK) continue;
    const written = storage.write(offset, bytes);
    if (isPromise(written)) await written;
  }
}
