import { compressedLength } from "../entries.js";
import type { CheckSession } from "./check-session.js";
import { CHUNK_BITS, CHUNK_MASK, CHUNK_SIZE, COUNT_MASK, SEEN_COPIED, SEEN_PLAIN } from "./reference-counts.js";
import { countRegion } from "./regions.js";

/**
 * Counts what an L2 table refers to, and judges its entries (qcow2 specification, "Cluster mapping").
 *
 * Entries are taken as two 32-bit halves. The quick loop handles what nearly every entry is, a cluster of the file or
 * nothing; everything else goes through `judgeEntry`, which is also all that is used with extended entries. What kind
 * of entry referred to a cluster is noted beside its count, so that flags need a second look only where they may be wrong.
 */

const TWO_32 = 0x1_0000_0000;
const COMPRESSED = 0x4000_0000;
const COPIED = 0x8000_0000;
const OFFSET_HIGH = 0x00ff_ffff;
const RESERVED_HIGH = 0x3f00_0000;
const RESERVED_LOW = 0x0000_01fe;
const ZERO = 1;
/** Any of these in the upper half makes an entry more than a plain data cluster or nothing. */
const NOT_PLAIN_HIGH = COMPRESSED | RESERVED_HIGH;
const NO_CHUNK = new Uint16Array(0);

/** An entry to be set to zero by the repair: a preallocated zero cluster with an impossible offset. */
export interface EntryToZero {
  readonly tableOffset: number;
  readonly index: number;
  /** The impossible offset. */
  readonly offset: number;
}

/** An L2 table to be counted. */
export interface L2Location {
  readonly offset: number;
  /** Of the live disk: it counts for fragmentation. */
  readonly active: boolean;
  /** How many L1 entries it is counted for at once. */
  readonly times: number;
  /** Entry of the L1 table, where it is counted for a single one. */
  readonly l1Index: number | undefined;
}

/** Running state of a table: where the next cluster would be if the data were in one piece. */
interface TableScan {
  readonly session: CheckSession;
  readonly tableOffset: number;
  readonly l1Index: number | undefined;
  /** Counts fragmentation: the active tables do. */
  readonly active: boolean;
  readonly times: number;
  readonly toZero: EntryToZero[];
  nextOffset: number;
}

/** Hexadecimal of a 64-bit word, without leading zeros. */
export function hex64(high: number, low: number): string {
  return high === 0 ? (low >>> 0).toString(16) : (high >>> 0).toString(16) + (low >>> 0).toString(16).padStart(8, "0");
}

/** Counts one L2 table that starts at byte `at` of `view`. */
export function countL2Table(
  session: CheckSession,
  view: DataView,
  at: number,
  { offset, active, times, l1Index }: L2Location,
  toZero: EntryToZero[],
): void {
  const scan: TableScan = { session, tableOffset: offset, l1Index, active, times, toZero, nextOffset: 0 };
  if (session.extendedL2 || session.hasDataFile || times !== 1) {
    scanSlowly(scan, view, at);
    return;
  }
  scanQuickly(scan, view, at);
}

function scanQuickly(scan: TableScan, view: DataView, at: number): void {
  const { session, active } = scan;
  const { clusterSize, clusterBits, version } = session.geometry;
  const { counts, fileClusters, tally } = session;
  const inPlace = counts.inPlace;
  const seenMask = active ? SEEN_COPIED | SEEN_PLAIN : 0;
  // Offset bits that would take the cluster index past 31 bits go the slow way too.
  const unusualHigh = NOT_PLAIN_HIGH | (OFFSET_HIGH & ~(2 ** (clusterBits - 1) - 1));
  const unusualLow = (clusterSize - 1) & (version === 2 ? -1 : ~ZERO);
  const highShift = 32 - clusterBits;
  const end = at + clusterSize;
  let chunkIndex = -1;
  let chunk: Uint16Array = NO_CHUNK;
  let allocated = 0;
  let fragmented = 0;
  let nextCluster = 0;
  for (let position = at; position < end; position += 8) {
    const high = view.getUint32(position);
    const low = view.getUint32(position + 4);
    if ((high & unusualHigh) === 0 && (low & unusualLow) === 0) {
      const cluster = ((high << highShift) | (low >>> clusterBits)) & 0x7fff_ffff;
      if (cluster === 0) continue;
      if (cluster < fileClusters) {
        if (cluster >>> CHUNK_BITS !== chunkIndex) {
          chunkIndex = cluster >>> CHUNK_BITS;
          chunk = counts.chunk(chunkIndex);
        }
        const element = chunk[cluster & CHUNK_MASK] as number;
        if ((element & COUNT_MASK) < inPlace) {
          const seen = (SEEN_PLAIN >>> (high >>> 31)) & seenMask;
          chunk[cluster & CHUNK_MASK] = (element + 1) | seen;
          if (cluster !== nextCluster && nextCluster !== 0) fragmented++;
          const most = Math.min((end - position) / 8, fileClusters - cluster);
          const count = countRun(view, position, most, clusterSize, chunk, cluster & CHUNK_MASK, 1 | seen);
          allocated += count;
          nextCluster = cluster + count;
          position += (count - 1) * 8;
          continue;
        }
      }
    }
    scan.nextOffset = nextCluster * clusterSize;
    judgeEntry(scan, (position - at) / 8, high, low, 0, 0);
    nextCluster = scan.nextOffset / clusterSize;
  }
  if (active) {
    tally.allocatedClusters += allocated;
    tally.fragmentedClusters += fragmented;
  }
}

/**
 * Counts the clusters of entries that follow the one at `position` for as long as each is in the file right behind the one before, as most are,
 * and nothing has referred to it: they become `element`. At most `most` entries, the first one included; returns how many they are.
 */
function countRun(
  view: DataView,
  position: number,
  most: number,
  clusterSize: number,
  chunk: Uint16Array,
  index: number,
  element: number,
): number {
  const high = view.getInt32(position);
  const count = Math.min(most, CHUNK_SIZE - index);
  let low = view.getInt32(position + 4);
  let done = 1;
  for (; done < count && chunk[index + done] === 0; done++) {
    low = (low + clusterSize) | 0;
    const at = position + done * 8;
    // Where the lower half begins anew the upper one is another, and a cluster size does not bring it back to where it was.
    if (view.getInt32(at + 4) !== low || view.getInt32(at) !== high || low === 0) break;
    chunk[index + done] = element;
  }
  return done;
}

function scanSlowly(scan: TableScan, view: DataView, at: number): void {
  const { l2EntrySize, l2Entries } = scan.session.geometry;
  for (let index = 0; index < l2Entries; index++) {
    const position = at + index * l2EntrySize;
    const zeroBits = l2EntrySize === 16 ? view.getUint32(position + 8) : 0;
    const dataBits = l2EntrySize === 16 ? view.getUint32(position + 12) : 0;
    judgeEntry(scan, index, view.getUint32(position), view.getUint32(position + 4), zeroBits, dataBits);
  }
}

function judgeEntry(
  scan: TableScan,
  index: number,
  high: number,
  low: number,
  zeroBits: number,
  dataBits: number,
): void {
  if ((high & COMPRESSED) !== 0) {
    judgeCompressed(scan, index, high, low, zeroBits !== 0 || dataBits !== 0);
    return;
  }
  const isVersion2 = scan.session.geometry.version === 2;
  // The stock tool takes bit 0 for the zero flag here, and for corruption when the guest reads the cluster.
  if ((high & RESERVED_HIGH) !== 0 || (low & (isVersion2 ? RESERVED_LOW | ZERO : RESERVED_LOW)) !== 0) {
    corruptEntry(scan, `ERROR found l2 entry with reserved bits set: ${hex64(high, low)}`);
  }
  const offset = (high & OFFSET_HIGH) * TWO_32 + ((low & ~0x1ff) >>> 0);
  const zeroFlag = !scan.session.extendedL2 && !isVersion2 && (low & ZERO) !== 0;
  // Cluster 0 of an external data file is data; the copied flag tells it from nothing.
  const atZero = scan.session.hasDataFile && !zeroFlag && (high & COPIED) !== 0;
  if (offset === 0 && !atZero) {
    if (dataBits !== 0) corruptEntry(scan, "ERROR: Unallocated cluster has non-zero subcluster allocation map");
    return;
  }
  judgeAllocated(scan, index, offset, zeroFlag, zeroBits, dataBits);
}

function judgeAllocated(
  scan: TableScan,
  index: number,
  offset: number,
  zeroFlag: boolean,
  zeroBits: number,
  dataBits: number,
): void {
  const { session, times } = scan;
  const { clusterSize } = session.geometry;
  if ((zeroBits & dataBits) !== 0) {
    corruptEntry(
      scan,
      `ERROR offset=${offset.toString(16)}: Allocated cluster has corrupted subcluster allocation bitmap`,
    );
  }
  if (offset % clusterSize !== 0) {
    const holdsData = session.extendedL2 ? dataBits !== 0 : !zeroFlag;
    if (!holdsData && session.fix === "all") {
      scan.toZero.push({ tableOffset: scan.tableOffset, index, offset });
      return;
    }
    const what = holdsData ? "Data" : "Preallocated";
    corruptEntry(
      scan,
      `ERROR offset=${offset.toString(16)}: ${what} cluster is not properly aligned; L2 entry corrupted.`,
    );
  }
  judgeDataFile(scan, index, offset);
  if (scan.active) {
    session.tally.allocatedClusters += times;
    if (scan.nextOffset !== 0 && offset !== scan.nextOffset) session.tally.fragmentedClusters += times;
  }
  scan.nextOffset = offset + clusterSize;
  session.flagsUncertain ||= scan.active;
  if (!session.hasDataFile) countRegion(session, offset, clusterSize, undefined, times);
}

/** In an external data file each byte has its guest offset. The stock tool does not look. */
function judgeDataFile(scan: TableScan, index: number, offset: number): void {
  const { session, l1Index } = scan;
  const { clusterSize, l2Coverage } = session.geometry;
  if (!session.hasDataFile || l1Index === undefined || offset % clusterSize !== 0) return;
  const guest = l1Index * l2Coverage + index * clusterSize;
  if (offset === guest) return;
  corruptEntry(
    scan,
    `ERROR data cluster of guest offset 0x${guest.toString(16)} is at offset 0x${offset.toString(16)} of the data file`,
  );
}

function judgeCompressed(scan: TableScan, index: number, high: number, low: number, bitmapSet: boolean): void {
  const { session, times } = scan;
  const { clusterBits } = session.geometry;
  const offsetHigh = high & (2 ** (38 - clusterBits) - 1);
  if ((high & COPIED) !== 0) {
    corruptEntry(
      scan,
      `ERROR: coffset=0x${hex64(offsetHigh, low)}: copied flag must never be set for compressed clusters`,
    );
  }
  const entry = hex64(high & ~COPIED, low);
  if (session.hasDataFile) {
    corruptEntry(scan, `ERROR compressed cluster ${index} with data file, entry=0x${entry}`);
    return;
  }
  if (bitmapSet) {
    corruptEntry(
      scan,
      `ERROR compressed cluster ${index} with non-zero subcluster allocation bitmap, entry=0x${entry}`,
    );
    return;
  }
  const offset = offsetHigh * TWO_32 + low;
  countRegion(session, offset, compressedLength(high, low, clusterBits), () => hex64(offsetHigh, low), times);
  if (scan.active) {
    session.tally.allocatedClusters += times;
    session.tally.compressedClusters += times;
    session.tally.fragmentedClusters += times;
  }
}

function corruptEntry(scan: TableScan, message: string): void {
  scan.session.mappingDamaged = true;
  scan.session.report(
    { kind: "l2-entry", severity: "corruption", structure: "L2 table", offset: scan.tableOffset },
    () => message,
    scan.times,
  );
}
