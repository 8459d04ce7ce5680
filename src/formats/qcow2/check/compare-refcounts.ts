import { viewOf } from "../../../base/bytes.js";
import { isZcowError } from "../../../base/errors.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { getRefcount } from "../refcount-entries.js";
import type { CheckSession } from "./check-session.js";
import { NO_BLOCK, type RefcountTable } from "./refcount-structures.js";
import { CHUNK_BITS, CHUNK_MASK, CHUNK_SIZE, COUNT_MASK, SEEN_COPIED, SEEN_PLAIN } from "./reference-counts.js";

const UNTOUCHED = new Uint16Array(CHUNK_SIZE);

/** A cluster whose stored count is not the number of references found. */
export interface Mismatch {
  readonly cluster: number;
  /** Infinity for 64-bit counts that are no safe integer. */
  readonly stored: number;
  /** The stored count to the last digit. */
  readonly storedText: string;
  readonly references: number;
}

/** What to do with mismatches: nothing more than report, or try to mend first. */
export interface Comparison {
  /** Called for each mismatch, in ascending order of clusters. */
  mismatch(mismatch: Mismatch, block: StoredBlock): void;
  /** Called when all counts of a block were compared, with the block if its bytes are there. */
  blockDone?(block: StoredBlock): Promise<void>;
}

/** A refcount block as read from the file. */
export interface StoredBlock {
  readonly index: number;
  /** Byte offset in the file; undefined when there is no block and all its counts are 0. */
  readonly offset: number | undefined;
  readonly bytes: Uint8Array;
}

/**
 * Compares every stored count with the references found, and notes the last cluster in use.
 *
 * Only blocks that exist and clusters in touched chunks cost time, so a sparse file of any length is cheap.
 */
export async function compareRefcounts(
  session: CheckSession,
  table: RefcountTable,
  comparison: Comparison,
): Promise<void> {
  const { refcountsPerBlock, clusterSize } = session.geometry;
  const total = session.comparedClusters;
  const bytes = new Uint8Array(clusterSize);
  let highest = -1;
  for (let index = 0; index * refcountsPerBlock < total; ) {
    const first = index * refcountsPerBlock;
    const last = Math.min(first + refcountsPerBlock, total);
    const offset = table.blockOffset(index);
    if (offset === NO_BLOCK && session.counts.isUntouched(first, last)) {
      index = nextBlock(session, table, index);
      continue;
    }
    if (offset === undefined) {
      unreadable(session, table, index, first, last);
    } else {
      const block = { index, offset: offset === NO_BLOCK ? undefined : offset, bytes };
      if (await fetchBlock(session, block, first, last)) {
        highest = Math.max(highest, compareBlock(session, block, first, last, comparison));
        await comparison.blockDone?.(block);
      }
    }
    index++;
    session.progress?.compare(last, total);
  }
  session.tally.imageEndOffset = (Math.max(highest, 0) + 1) * clusterSize;
}

/** Skips blocks that do not exist and whose clusters nobody refers to. */
function nextBlock(session: CheckSession, table: RefcountTable, index: number): number {
  const { refcountsPerBlock } = session.geometry;
  if (index + 1 < table.length) return index + 1;
  const touched = session.counts.nextTouched((index + 1) * refcountsPerBlock);
  return Math.max(index + 1, Math.floor(touched / refcountsPerBlock));
}

/** Fills `block.bytes`. False when the storage failed, which is reported and makes the block one to be rebuilt. */
async function fetchBlock(session: CheckSession, block: StoredBlock, first: number, last: number): Promise<boolean> {
  if (block.offset === undefined || block.offset >= session.fileLength) {
    block.bytes.fill(0);
    return true;
  }
  try {
    const wait = session.storage.read(block.offset, block.bytes);
    if (isPromise(wait)) await wait;
    return true;
  } catch (error) {
    if (!isZcowError(error)) throw error;
    reportUnreadable(session, first, last);
    return false;
  }
}

function unreadable(session: CheckSession, table: RefcountTable, index: number, first: number, last: number): void {
  session.report(
    { kind: "refcount-unreadable", severity: "note", structure: `refcount block ${index}` },
    () =>
      `qcow2: Image is corrupt: Refblock offset 0x${table.offsetText(index)} unaligned (reftable index: ` +
      `${index === 0 ? "0" : `0x${index.toString(16)}`}); further non-fatal corruption events will be suppressed`,
  );
  reportUnreadable(session, first, last);
}

function reportUnreadable(session: CheckSession, first: number, last: number): void {
  session.needsRebuild = true;
  session.blocksUnreadable = true;
  for (let cluster = first; cluster < last; cluster++) {
    session.report(
      {
        kind: "refcount-unreadable",
        severity: "error",
        structure: `cluster ${cluster}`,
        offset: cluster * session.geometry.clusterSize,
      },
      () => `Can't get refcount for cluster ${cluster}: Input/output error`,
    );
  }
}

/** Compares the counts of clusters [first, last); returns the highest cluster in use, or -1. */
function compareBlock(
  session: CheckSession,
  block: StoredBlock,
  first: number,
  last: number,
  comparison: Comparison,
): number {
  if (session.geometry.refcountOrder !== 4) return compareSlowly(session, block, first, first, last, comparison);
  const { counts } = session;
  const view = viewOf(block.bytes);
  let highest = -1;
  for (let from = first; from < last; ) {
    const to = Math.min(last, ((from >>> CHUNK_BITS) + 1) * CHUNK_SIZE);
    const chunk = counts.existingChunk(from >>> CHUNK_BITS) ?? UNTOUCHED;
    highest = Math.max(highest, compareChunk(session, block, view, chunk, first, from, to, comparison));
    from = to;
  }
  return highest;
}

/** The quick loop over 16-bit counts: what it is not sure about goes to `compareSlowly`. */
function compareChunk(
  session: CheckSession,
  block: StoredBlock,
  view: DataView,
  chunk: Uint16Array,
  first: number,
  from: number,
  to: number,
  comparison: Comparison,
): number {
  const pairs = { stored: pairsOf(view, from - first), found: pairsOf(chunk, from & CHUNK_MASK) };
  let highest = -1;
  for (let cluster = from; cluster < to; cluster++) {
    const usual = from + usualCounts(pairs, cluster - from, to - from);
    if (usual > cluster) {
      highest = usual - 1;
      cluster = usual;
      if (cluster === to) break;
    }
    const stored = view.getUint16((cluster - first) * 2);
    const element = chunk[cluster & CHUNK_MASK] as number;
    if (element === 0 && stored === 0) continue;
    highest = cluster;
    if (stored === 1 && (element === 1 || element === (1 | SEEN_COPIED))) continue;
    if (stored > 1 && stored < COUNT_MASK && (element === stored || element === (stored | SEEN_PLAIN))) continue;
    compareSlowly(session, block, first, cluster, cluster + 1, comparison);
  }
  return highest;
}

/** Two counts in a word, in whatever order the processor has its bytes. */
interface CountPairs {
  readonly stored: Uint32Array;
  readonly found: Uint32Array;
}

const ONE_STORED = new Uint32Array(Uint8Array.of(0, 1, 0, 1).buffer)[0];
const ONE_FOUND = new Uint32Array(Uint16Array.of(1 | SEEN_COPIED, 1 | SEEN_COPIED).buffer)[0];

/** From 16-bit element `from` on, which is an even one. */
function pairsOf({ buffer, byteOffset, byteLength }: ArrayBufferView, from: number): Uint32Array {
  return new Uint32Array(buffer, byteOffset + from * 2, Math.floor(byteLength / 4) - from / 2);
}

/** Where the clusters from `at` on end that have a count of 1 and one entry with the copied flag, as nearly all clusters do. */
function usualCounts({ stored, found }: CountPairs, at: number, to: number): number {
  if (at % 2 !== 0) return at;
  const end = to >>> 1;
  let pair = at >>> 1;
  while (pair < end && stored[pair] === ONE_STORED && found[pair] === ONE_FOUND) pair++;
  return pair * 2;
}

function compareSlowly(
  session: CheckSession,
  block: StoredBlock,
  first: number,
  from: number,
  to: number,
  comparison: Comparison,
): number {
  const { counts, geometry } = session;
  let highest = -1;
  for (let cluster = from; cluster < to; cluster++) {
    const stored = getRefcount(block.bytes, cluster - first, geometry.refcountOrder);
    const references = counts.get(cluster);
    if (stored !== 0 || references !== 0) highest = cluster;
    const seen = counts.seen(cluster);
    const wrongFlag = stored === 1 ? SEEN_PLAIN : SEEN_COPIED;
    if ((seen & wrongFlag) !== 0) session.flagsUncertain = true;
    if (stored !== references) {
      if (seen !== 0) session.flagsUncertain = true;
      const storedText = Number.isFinite(stored) ? String(stored) : wideCount(block.bytes, cluster - first);
      comparison.mismatch({ cluster, stored, storedText, references }, block);
    }
  }
  return highest;
}

function wideCount(block: Uint8Array, index: number): string {
  return viewOf(block)
    .getBigUint64(index * 8)
    .toString();
}
