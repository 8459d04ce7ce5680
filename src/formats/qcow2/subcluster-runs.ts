import { hostOffset } from "../../base/units.js";
import {
  compressedLength,
  compressedOffset,
  isCopied,
  L2_COMPRESSED,
  L2_CORRUPT,
  L2_UNALLOCATED,
  l2Offset,
} from "./entries.js";
import type { Qcow2Geometry } from "./geometry.js";
import type { MappedRun, MappingRun } from "./mapping.js";
import {
  hostKind,
  mapsAreCorrupt,
  SUBCLUSTER_STORED,
  SUBCLUSTER_ZERO,
  type SubclusterState,
  sameState,
  storedMap,
  subclusterState,
  zeroMap,
} from "./subclusters.js";

/** Bytes of an extended entry. */
const ENTRY_BYTES = 16;

/**
 * The run that starts at subcluster `inside` of the cluster whose extended entry is at byte `at`, at most `limit` subclusters and
 * not past the end of `view`. Says what is corrupt when the first entry breaks the rules; a later one ends the run. The
 * descriptor of a compressed cluster is not judged.
 */
export function subclusterRun(
  view: DataView,
  at: number,
  inside: number,
  limit: number,
  geometry: Qcow2Geometry,
  reservedLow: number,
): MappingRun | "corrupt entry" | "corrupt maps" {
  const { clusterSize, clusterBits, subclusters, subclusterSize, externalData } = geometry;
  const high = view.getUint32(at);
  const low = view.getUint32(at + 4);
  const kind = hostKind(high, low, reservedLow, externalData);
  if (kind === L2_CORRUPT) return "corrupt entry";
  const zeros = zeroMap(view, at);
  const stored = storedMap(view, at);
  if (mapsAreCorrupt(kind, zeros, stored)) return "corrupt maps";
  if (kind === L2_COMPRESSED) {
    const host = hostOffset(compressedOffset(high, low, clusterBits));
    const length = compressedLength(high, low, clusterBits);
    return { kind: "compressed", count: Math.min(limit, subclusters - inside), host, length };
  }
  const state = subclusterState(zeros, stored, inside);
  const isMapped = kind !== L2_UNALLOCATED;
  const host = l2Offset(high, low);
  const copied = isCopied(high);
  let count = sameState(zeros, stored, state, inside);
  let isWhole = inside + count === subclusters;
  let next = host + clusterSize;
  for (let entry = at + ENTRY_BYTES; isWhole && count < limit && entry < view.byteLength; entry += ENTRY_BYTES) {
    const nextHigh = view.getUint32(entry);
    const nextLow = view.getUint32(entry + 4);
    if (hostKind(nextHigh, nextLow, reservedLow, externalData) !== kind) break;
    if (isMapped && (l2Offset(nextHigh, nextLow) !== next || isCopied(nextHigh) !== copied)) break;
    const nextZeros = zeroMap(view, entry);
    const nextStored = storedMap(view, entry);
    if (mapsAreCorrupt(kind, nextZeros, nextStored)) break;
    const more = sameState(nextZeros, nextStored, state, 0);
    count += more;
    isWhole = more === subclusters;
    next += clusterSize;
  }
  count = Math.min(count, limit);
  if (!isMapped) return { kind: state === SUBCLUSTER_ZERO ? "zero" : "unallocated", count };
  return { kind: mappedKind(state), count, host: hostOffset(host + inside * subclusterSize), copied };
}

function mappedKind(state: SubclusterState): MappedRun["kind"] {
  if (state === SUBCLUSTER_STORED) return "data";
  return state === SUBCLUSTER_ZERO ? "zero-preallocated" : "preallocated";
}
