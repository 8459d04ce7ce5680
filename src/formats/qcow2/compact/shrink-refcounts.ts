import { ceilDiv } from "../../../base/integers.js";
import { isPromise } from "../../../base/maybe-promise.js";
import type { Storage } from "../../../storage/storage.js";
import type { CheckSession } from "../check/check-session.js";
import { switchRefcountTable } from "../check/header-patch.js";
import { NO_BLOCK, type RefcountTable, readRefcountTable } from "../check/refcount-structures.js";
import { changeCounts } from "./stored-counts.js";

/** Takes out the refcount blocks behind the end of the data, and the clusters of the table that name none. Returns the table in force. */
export async function shrinkRefcounts(session: CheckSession, table: RefcountTable): Promise<RefcountTable> {
  const losses = await dropBlocks(session, table);
  const smaller = await readRefcountTable(session);
  await changeCounts(session, smaller, losses);
  await flush(session.storage);
  return cutTable(session, smaller);
}

/** The clusters of the blocks that are out of the table, durably. */
async function dropBlocks(session: CheckSession, table: RefcountTable): Promise<Map<number, number>> {
  const { storage, header, geometry } = session;
  const losses = new Map<number, number>();
  const entry = new Uint8Array(8);
  for (let index = table.length - 1; index > 0; index--) {
    const offset = table.blockOffset(index) ?? NO_BLOCK;
    if (offset === NO_BLOCK) continue;
    const block = offset / geometry.clusterSize;
    if (!countsOnlyItself(session, index, block)) break;
    const wait = storage.write(header.refcountTableOffset + index * 8, entry);
    if (isPromise(wait)) await wait;
    losses.set(block, -1);
  }
  await flush(storage);
  return losses;
}

function countsOnlyItself({ counts, geometry }: CheckSession, index: number, block: number): boolean {
  const first = index * geometry.refcountsPerBlock;
  const end = Math.min(first + geometry.refcountsPerBlock, counts.clusters);
  for (let cluster = counts.nextTouched(first); cluster < end; cluster = counts.nextTouched(cluster + 1)) {
    if (cluster !== block && counts.get(cluster) > 0) return false;
  }
  return true;
}

async function cutTable(session: CheckSession, table: RefcountTable): Promise<RefcountTable> {
  const { storage, header, geometry } = session;
  let entries = table.length;
  while (entries > 1 && table.blockOffset(entries - 1) === NO_BLOCK) entries--;
  const needed = ceilDiv(entries * 8, geometry.clusterSize);
  const clusters = header.refcountTableClusters;
  if (needed >= clusters) return table;
  session.header = await switchRefcountTable(storage, header, header.refcountTableOffset, needed);
  const first = header.refcountTableOffset / geometry.clusterSize;
  const losses = new Map<number, number>();
  for (let cluster = first + needed; cluster < first + clusters; cluster++) losses.set(cluster, -1);
  const smaller = await readRefcountTable(session);
  await changeCounts(session, smaller, losses);
  await flush(storage);
  return smaller;
}

async function flush(storage: Storage): Promise<void> {
  const wait = storage.flush();
  if (isPromise(wait)) await wait;
}
