import { entryHigh, entryLow } from "./entries.js";
import type { Qcow2Geometry } from "./geometry.js";
import type { GuestMap } from "./mapping.js";
import { setMaps, storedMap, subclusterMask, zeroMap } from "./subclusters.js";
import type { TableSlice } from "./table-cache.js";

/** Guest subclusters and where they are in the file, without a gap. */
export interface LinkedSubclusters {
  /** First guest subcluster. */
  readonly first: number;
  readonly count: number;
  /** File offset of the first one. */
  readonly host: number;
}

/**
 * Says in extended entries that the subclusters are stored there; the others of their clusters stay what they are. Within one
 * slice, which is edited already.
 */
export function markStored(
  map: GuestMap,
  { view }: TableSlice,
  { first, count, host }: LinkedSubclusters,
  { subclusters, clusterSize, subclusterSize, l2EntrySize }: Qcow2Geometry,
): void {
  let inside = first % subclusters;
  let at = map.entryAt((first - inside) / subclusters);
  let cluster = host - inside * subclusterSize;
  for (let left = count; left > 0; ) {
    const part = Math.min(left, subclusters - inside);
    const mask = subclusterMask(inside, inside + part);
    view.setUint32(at, entryHigh(cluster, true));
    view.setUint32(at + 4, entryLow(cluster, false));
    setMaps(view, at, zeroMap(view, at) & ~mask, storedMap(view, at) | mask);
    left -= part;
    inside = 0;
    at += l2EntrySize;
    cluster += clusterSize;
  }
}
