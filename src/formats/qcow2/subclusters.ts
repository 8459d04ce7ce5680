import { L2_COMPRESSED, L2_UNALLOCATED, l2Kind, ZERO_LOW } from "./entries.js";
import { SUBCLUSTERS } from "./limits.js";

/**
 * Extended L2 entries (qcow2 specification, "Extended L2 Entries"): a standard entry, whose zero flag is not used, and a second
 * 64-bit word with two bits for each of the 32 subclusters of the cluster, subcluster 0 the lowest.
 *
 * Upper half: reads as zeros. Lower half: stored in the host cluster. Neither: what shows where nothing is mapped, with a
 * host cluster or without. Both, or stored without a host cluster, is corrupt; a compressed entry has no bit set.
 */

/** Bytes from the start of an entry to the map of subclusters that read as zeros. */
const ZERO_MAP_AT = 8;
/** Bytes from the start of an entry to the map of subclusters that are stored. */
const STORED_MAP_AT = 12;

export const SUBCLUSTER_UNMAPPED = 0;
export const SUBCLUSTER_ZERO = 1;
export const SUBCLUSTER_STORED = 2;
export type SubclusterState = 0 | 1 | 2;

/** Subclusters that read as zeros, of the entry at byte `at`: a bit each, as a signed 32-bit number. */
export function zeroMap(view: DataView, at: number): number {
  return view.getInt32(at + ZERO_MAP_AT);
}

/** Subclusters that are stored in the host cluster. */
export function storedMap(view: DataView, at: number): number {
  return view.getInt32(at + STORED_MAP_AT);
}

export function setMaps(view: DataView, at: number, zeros: number, stored: number): void {
  view.setInt32(at + ZERO_MAP_AT, zeros);
  view.setInt32(at + STORED_MAP_AT, stored);
}

/** Bits of the subclusters [first, end) of a cluster; `first` < `end` <= 32. */
export function subclusterMask(first: number, end: number): number {
  return (-1 << first) & (-1 >>> (SUBCLUSTERS - end));
}

/** The entry at `at` has all subclusters of `mask` stored, and its maps do not contradict each other. */
export function isStored(view: DataView, at: number, mask: number): boolean {
  const stored = view.getInt32(at + STORED_MAP_AT);
  return (stored & mask) === mask && (stored & view.getInt32(at + ZERO_MAP_AT)) === 0;
}

/** Kind of the first word alone: with extended entries its zero flag means nothing. */
export function hostKind(
  high: number,
  low: number,
  reservedLow: number,
  externalData: boolean,
): ReturnType<typeof l2Kind> {
  return l2Kind(high, low & ~ZERO_LOW, reservedLow, externalData);
}

/** The maps break the rules; `kind` is that of the first word, not corrupt itself. */
export function mapsAreCorrupt(kind: number, zeros: number, stored: number): boolean {
  if (kind === L2_COMPRESSED) return (zeros | stored) !== 0;
  return (zeros & stored) !== 0 || (kind === L2_UNALLOCATED && stored !== 0);
}

export function subclusterState(zeros: number, stored: number, subcluster: number): SubclusterState {
  if (((stored >>> subcluster) & 1) !== 0) return SUBCLUSTER_STORED;
  return ((zeros >>> subcluster) & 1) !== 0 ? SUBCLUSTER_ZERO : SUBCLUSTER_UNMAPPED;
}

/** How many subclusters from `first` to the end of the cluster are in `state`, one after the other. */
export function sameState(zeros: number, stored: number, state: SubclusterState, first: number): number {
  const others = state === SUBCLUSTER_STORED ? ~stored : state === SUBCLUSTER_ZERO ? ~zeros : zeros | stored;
  const left = others >>> first;
  return left === 0 ? SUBCLUSTERS - first : 31 - Math.clz32(left & -left);
}
