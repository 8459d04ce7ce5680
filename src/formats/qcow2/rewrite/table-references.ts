import { viewOf } from "../../../base/bytes.js";
import { ZcowError } from "../../../base/errors.js";
import { isPromise, type MaybePromise } from "../../../base/maybe-promise.js";
import {
  COPIED_HIGH,
  compressedIsCorrupt,
  compressedLength,
  compressedOffset,
  isL1EntryCorrupt,
  l1Offset,
  l2Offset,
} from "../entries.js";
import type { Qcow2Geometry } from "../geometry.js";

/** What mapping tables refer to, entry by entry, for those that count references and set copied flags. */

const COMPRESSED_HIGH = 0x4000_0000;
const UNSAFE_OFFSET_HIGH = 0x00e0_0000;

type Shape = Pick<Qcow2Geometry, "clusterSize" | "clusterBits" | "l2EntrySize" | "externalData">;

/** The L2 table of an L1 entry: a file offset, 0 = none. Throws `IMAGE_CORRUPT`. */
export function tableOf(l1: DataView, index: number, geometry: Shape, fileSize: number): number {
  const high = l1.getUint32(index * 8);
  const low = l1.getUint32(index * 8 + 4);
  const offset = l1Offset(high, low);
  if (!isL1EntryCorrupt(high, low, geometry.clusterSize) && offset < fileSize) return offset;
  throw new ZcowError(
    "IMAGE_CORRUPT",
    `L1 entry ${index} is 0x${l1.getBigUint64(index * 8).toString(16)}: not a multiple of the cluster size inside the file of ${fileSize} bytes, or reserved bits are set`,
    { data: { structure: "L1 table", field: `entry ${index}`, value: offset, limit: fileSize } },
  );
}

/**
 * Calls `visit` for each run of host clusters that the entries of an L2 table refer to; clusters of an external data file are not
 * counted. Throws `IMAGE_CORRUPT`.
 */
export async function visitReferences(
  table: Uint8Array,
  geometry: Shape,
  visit: (first: number, count: number) => MaybePromise<void>,
): Promise<void> {
  const { clusterSize, l2EntrySize, externalData } = geometry;
  if (externalData) return;
  const view = viewOf(table);
  let first = -1;
  let count = 0;
  for (let at = 0; at < table.length; at += l2EntrySize) {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    if ((high | low) === 0) continue;
    const isCompressed = (high & COMPRESSED_HIGH) !== 0;
    const offset = isCompressed ? compressedStart(high, low, geometry, at) : l2Offset(high, low);
    if (offset === 0) continue;
    if (!isCompressed && (offset % clusterSize !== 0 || (high & UNSAFE_OFFSET_HIGH) !== 0)) {
      throw corruptEntry(high, low, geometry, at);
    }
    const cluster = Math.floor(offset / clusterSize);
    if (cluster === first + count && !isCompressed) {
      count += 1;
      continue;
    }
    const wait = count === 0 ? undefined : visit(first, count);
    if (isPromise(wait)) await wait;
    first = cluster;
    count = isCompressed ? compressedClusters(high, low, geometry, offset) : 1;
  }
  const wait = count === 0 ? undefined : visit(first, count);
  if (isPromise(wait)) await wait;
}

function compressedStart(high: number, low: number, geometry: Shape, at: number): number {
  if (compressedIsCorrupt(high, low, geometry.clusterBits)) throw corruptEntry(high, low, geometry, at);
  return compressedOffset(high, low, geometry.clusterBits);
}

function compressedClusters(high: number, low: number, geometry: Shape, offset: number): number {
  const { clusterSize, clusterBits } = geometry;
  const last = offset + compressedLength(high, low, clusterBits) - 1;
  return Math.floor(last / clusterSize) - Math.floor(offset / clusterSize) + 1;
}

function corruptEntry(high: number, low: number, geometry: Shape, at: number): ZcowError {
  const text = high.toString(16) + low.toString(16).padStart(8, "0");
  return new ZcowError(
    "IMAGE_CORRUPT",
    `L2 entry ${at / geometry.l2EntrySize} of a table is 0x${text}: its host offset is none that a cluster can have; check and repair the image first`,
    { data: { structure: "L2 table", field: `entry ${at / geometry.l2EntrySize}`, value: text } },
  );
}

/** Sets the copied flag of each entry that has one to whether its cluster's count is 1. Returns how many have changed. */
export async function settleCopied(
  table: Uint8Array,
  geometry: Shape,
  countOf: (cluster: number) => MaybePromise<number>,
): Promise<number> {
  const view = viewOf(table);
  let changed = 0;
  for (let at = 0; at < table.length; at += geometry.l2EntrySize) {
    const high = view.getUint32(at);
    if ((high & COMPRESSED_HIGH) !== 0) continue;
    const offset = l2Offset(high, view.getUint32(at + 4));
    if (offset === 0) continue;
    const found = countOf(offset / geometry.clusterSize);
    const isOnly = (isPromise(found) ? await found : found) === 1;
    if (isOnly === high >= COPIED_HIGH) continue;
    view.setUint32(at, withCopied(high, isOnly));
    changed += 1;
  }
  return changed;
}

/** The upper half of an entry with its copied flag set or clear. */
export function withCopied(high: number, copied: boolean): number {
  return (copied ? high | COPIED_HIGH : high & ~COPIED_HIGH) >>> 0;
}
