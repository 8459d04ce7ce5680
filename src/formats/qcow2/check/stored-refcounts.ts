import { isPromise } from "../../../base/maybe-promise.js";
import { getRefcount } from "../refcount-entries.js";
import type { CheckSession } from "./check-session.js";
import { NO_BLOCK, type RefcountTable } from "./refcount-structures.js";

/**
 * The stored count of one cluster, for any cluster number: clusters of the file are in `session.counts` once stored
 * and counted references were brought together; for those past its end, the entry is read. Undefined where
 * the block cannot be found.
 */
export async function storedRefcount(
  session: CheckSession,
  table: RefcountTable,
  cluster: number,
): Promise<number | undefined> {
  if (cluster < session.comparedClusters) return session.counts.get(cluster);
  const { refcountsPerBlock, refcountBits, refcountOrder } = session.geometry;
  const index = Math.floor(cluster / refcountsPerBlock);
  const offset = table.blockOffset(index);
  if (offset === undefined) return undefined;
  if (offset === NO_BLOCK || offset >= session.fileLength) return 0;
  const within = cluster % refcountsPerBlock;
  const firstByte = Math.floor((within * refcountBits) / 8);
  const bytes = new Uint8Array(Math.max(1, refcountBits / 8));
  const wait = session.read(offset + firstByte, bytes, "a refcount block");
  if (isPromise(wait)) await wait;
  return getRefcount(bytes, refcountBits < 8 ? within % (8 / refcountBits) : 0, refcountOrder);
}
