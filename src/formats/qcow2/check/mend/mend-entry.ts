import { compressedHigh, compressedIsCorrupt, compressedLength, compressedOffset, l2Offset } from "../../entries.js";
import { setMaps, storedMap, zeroMap } from "../../subclusters.js";
import type { CheckSession } from "../check-session.js";

/**
 * Puts single L2 entries right (qcow2 specification, "Cluster mapping"). What an entry can still say is kept: bits without a
 * meaning are cleared and the offset stays. Data that cannot be found any more become zeros, and not what a backing file has
 * there: what the guest wrote over must not come back.
 */

const COPIED = 0x8000_0000;
const COMPRESSED = 0x4000_0000;
const RESERVED_HIGH = 0x3f00_0000;
const RESERVED_LOW = 0x1fe;
const OFFSET_HIGH = 0x00ff_ffff;
const TWO_32 = 0x1_0000_0000;
const ZERO = 1;

/** Where the entry at byte `at` of a table refers to, in the image file. Bytes. */
export interface HostRange {
  readonly offset: number;
  readonly length: number;
}

/** Mends the entry at byte `at` of the table, which maps the disk from byte `guest`; what was wrong with it, or undefined. */
export function mendEntry(session: CheckSession, view: DataView, at: number, guest: number): string | undefined {
  if (view.getUint32(at) === 0 && view.getUint32(at + 4) === 0) {
    return session.extendedL2 ? mendMaps(view, at, false) : undefined;
  }
  return isCompressed(view, at) ? mendCompressed(session, view, at) : mendStandard(session, view, at, guest);
}

/** The bytes of the image file that a sound entry refers to; undefined for none, or another file. */
export function hostRange(session: CheckSession, view: DataView, at: number): HostRange | undefined {
  const { clusterBits, clusterSize } = session.geometry;
  const high = view.getUint32(at);
  const low = view.getUint32(at + 4);
  if (session.hasDataFile) return undefined;
  if (isCompressed(view, at)) {
    return { offset: compressedOffset(high, low, clusterBits), length: compressedLength(high, low, clusterBits) };
  }
  const offset = l2Offset(high, low);
  return offset === 0 ? undefined : { offset, length: clusterSize };
}

function isCompressed(view: DataView, at: number): boolean {
  return (view.getUint32(at) & COMPRESSED) !== 0;
}

function mendCompressed(session: CheckSession, view: DataView, at: number): string | undefined {
  const { clusterBits, clusterSize } = session.geometry;
  const high = view.getUint32(at);
  const low = view.getUint32(at + 4);
  if (session.hasDataFile) return lose(session, view, at, "compressed cluster with an external data file");
  const offset = compressedOffset(high, low, clusterBits);
  const end = offset + compressedLength(high, low, clusterBits);
  if (compressedIsCorrupt(high, low, clusterBits) || offset >= session.fileLength) {
    return lose(session, view, at, "compressed cluster outside the file");
  }
  const faults: string[] = [];
  if (end - session.fileLength >= clusterSize) {
    // The data say themselves where they end, and may be whole.
    view.setUint32(at, compressedHigh(offset, session.fileLength - offset, clusterBits));
    faults.push("compressed cluster that reaches past the end of the file");
  }
  if ((high & COPIED) !== 0) {
    view.setUint32(at, (view.getUint32(at) & ~COPIED) >>> 0);
    faults.push("compressed cluster with the copied flag");
  }
  if (session.extendedL2 && (zeroMap(view, at) | storedMap(view, at)) !== 0) {
    setMaps(view, at, 0, 0);
    faults.push("compressed cluster with a subcluster map");
  }
  return faults.length === 0 ? undefined : faults.join(", ");
}

function mendStandard(session: CheckSession, view: DataView, at: number, guest: number): string | undefined {
  const high = view.getUint32(at);
  const low = view.getUint32(at + 4);
  const offset = l2Offset(high, low);
  const isEmpty = offset === 0 && !(session.hasDataFile && (high & COPIED) !== 0);
  const faults: string[] = [];
  if (session.hasDataFile && !isEmpty && offset !== guest) {
    // Nothing is lost: there is one place where it can be.
    view.setUint32(at, ((high & ~OFFSET_HIGH) | Math.floor(guest / TWO_32)) >>> 0);
    view.setUint32(at + 4, ((low & 0x1ff) | (guest % TWO_32)) >>> 0);
    faults.push("another offset of the data file than that of the guest");
  } else {
    if (offset % session.geometry.clusterSize !== 0) return lose(session, view, at, "cluster between clusters");
    if (!session.hasDataFile && offset >= session.fileLength)
      return lose(session, view, at, "cluster outside the file");
  }
  // Version 2 knows no zero clusters.
  const reservedLow = session.geometry.version === 2 ? RESERVED_LOW | ZERO : RESERVED_LOW;
  if ((high & RESERVED_HIGH) !== 0 || (low & reservedLow) !== 0) {
    view.setUint32(at, (view.getUint32(at) & ~RESERVED_HIGH) >>> 0);
    view.setUint32(at + 4, (view.getUint32(at + 4) & ~reservedLow) >>> 0);
    faults.push("reserved bits");
  }
  const maps = session.extendedL2 ? mendMaps(view, at, !isEmpty) : undefined;
  if (maps !== undefined) faults.push(maps);
  return faults.length === 0 ? undefined : faults.join(", ");
}

/** A subcluster that both is stored and reads as zeros keeps its data; one that is stored nowhere reads as zeros. */
function mendMaps(view: DataView, at: number, hasHost: boolean): string | undefined {
  const zeros = zeroMap(view, at);
  const stored = storedMap(view, at);
  if (!hasHost && stored !== 0) {
    setMaps(view, at, zeros | stored, 0);
    return "stored subclusters without a cluster";
  }
  if ((zeros & stored) === 0) return undefined;
  setMaps(view, at, zeros & ~stored, stored);
  return "subclusters that are stored and read as zeros at once";
}

/** The data are lost: what of them was mapped reads as zeros; in version 2, which has no such entries, as nothing. */
function lose(session: CheckSession, view: DataView, at: number, what: string): string {
  const wasCompressed = isCompressed(view, at);
  view.setUint32(at, 0);
  view.setUint32(at + 4, session.extendedL2 || session.geometry.version === 2 ? 0 : ZERO);
  if (session.extendedL2) setMaps(view, at, wasCompressed ? -1 : zeroMap(view, at) | storedMap(view, at), 0);
  return `${what}, now reads as zeros`;
}
