import { alignUp } from "../../base/integers.js";
import { isPromise } from "../../base/maybe-promise.js";
import { MiB } from "../../base/units.js";
import type { CreateImageOptions } from "../../formats/create-image.js";
import { createImage } from "../../formats/create-image.js";
import { encodeHeader } from "../../formats/qcow2/header-encode.js";
import { readHeader } from "../../formats/qcow2/header-read.js";
import { memoryStorage } from "../../storage/memory-storage.js";
import type { JoinedDisk } from "./joined-disk.js";

/** Takes bytes in order; they are its own no longer than until it resolves. */
export type ByteSink = (bytes: Uint8Array) => Promise<void>;

const PIECE_BYTES = MiB;
const ENTRY_BYTES = 8;
/** The copied flag of a table entry, in its upper half (qcow2 specification, "L1 table entry"): nobody else has the cluster. */
const COPIED_HIGH = 0x8000_0000;
const TWO_32 = 2 ** 32;

type Progress = ((done: number, total: number) => void) | undefined;

/** Sends all bytes of the disk, zeros included. */
export async function streamRaw(source: JoinedDisk, sink: ByteSink, onProgress?: Progress): Promise<void> {
  await streamRange(source, 0, source.size, sink);
  onProgress?.(source.size, source.size);
}

async function streamRange(
  source: JoinedDisk,
  from: number,
  to: number,
  sink: ByteSink,
  onPiece?: (end: number) => void,
): Promise<void> {
  const buffer = new Uint8Array(PIECE_BYTES);
  for (let at = from; at < to; at += PIECE_BYTES) {
    const bytes = buffer.subarray(0, Math.min(PIECE_BYTES, to - at));
    // Past the end of the disk, in its last cluster, there are zeros.
    const inside = Math.max(0, Math.min(bytes.length, source.size - at));
    bytes.fill(0, inside);
    const wait = source.read(at, bytes.subarray(0, inside));
    if (isPromise(wait)) await wait;
    await sink(bytes);
    onPiece?.(at + bytes.length);
  }
}

/**
 * Sends a qcow2 image of the disk from its first byte to its last: header, refcount table and blocks, L1 table, L2 tables, data.
 * Where everything goes follows from what the source says it has data in, which is asked for three times; the data are read once.
 * Clusters of zeros that the source has as data become data. Memory: one cluster, one piece, and the L1 table.
 *
 * `options`: cluster size, version and lazy refcounts; 16 refcount bits and plain entries. Fails as creating an image does.
 */
export async function streamQcow2(
  source: JoinedDisk,
  options: Extract<CreateImageOptions, { format: "qcow2" }>,
  sink: ByteSink,
  onProgress?: Progress,
): Promise<void> {
  // What a new image of that size has in its header.
  const model = memoryStorage();
  await createImage(model, { ...options, size: alignUp(source.size, 512) });
  const header = await readHeader(model);
  const clusterSize = 2 ** header.clusterBits;
  const perTable = clusterSize / ENTRY_BYTES;

  const tables: number[] = [];
  let dataClusters = 0;
  for await (const { first, end } of mappedRuns(source, clusterSize)) {
    dataClusters += end - first;
    const from = Math.max(Math.floor(first / perTable), (tables.at(-1) ?? -1) + 1);
    for (let table = from; table * perTable < end; table++) tables.push(table);
  }
  const l1Clusters = Math.ceil((header.l1Size * ENTRY_BYTES) / clusterSize);
  const refcounts = refcountClusters(1 + l1Clusters + tables.length + dataClusters, clusterSize);
  const l1At = 1 + refcounts.table + refcounts.blocks;
  const l2At = l1At + l1Clusters;
  const dataAt = l2At + tables.length;

  await sink(
    encodeHeader({
      ...header,
      refcountTableOffset: clusterSize,
      refcountTableClusters: refcounts.table,
      l1TableOffset: l1At * clusterSize,
    }),
  );
  await sink(
    tableOf(refcounts.table * clusterSize, refcounts.blocks, (index) => (1 + refcounts.table + index) * clusterSize),
  );
  await sendRefcounts(dataAt + dataClusters, refcounts.blocks, clusterSize, sink);
  const l1 = new Uint8Array(l1Clusters * clusterSize);
  const l1View = new DataView(l1.buffer);
  tables.forEach((table, index) => putEntry(l1View, table, (l2At + index) * clusterSize));
  if (l1Clusters > 0) await sink(l1);
  await sendL2Tables(source, clusterSize, tables, dataAt, sink);
  for await (const { first, end } of mappedRuns(source, clusterSize)) {
    await streamRange(source, first * clusterSize, end * clusterSize, sink, (at) =>
      onProgress?.(Math.min(at, source.size), source.size),
    );
  }
  onProgress?.(source.size, source.size);
}

/** Runs of whole clusters that hold data, in order and apart from each other. */
async function* mappedRuns(
  source: JoinedDisk,
  clusterSize: number,
): AsyncGenerator<{ readonly first: number; readonly end: number }> {
  let run: { first: number; end: number } | undefined;
  for await (const { offset, length, zero } of source.extents()) {
    if (zero) continue;
    const first = Math.floor(offset / clusterSize);
    const end = Math.ceil((offset + length) / clusterSize);
    if (run !== undefined && first <= run.end) {
      run.end = Math.max(run.end, end);
      continue;
    }
    if (run !== undefined) yield run;
    run = { first, end };
  }
  if (run !== undefined) yield run;
}

/** Clusters of refcount table and blocks that count `others` clusters and themselves. */
function refcountClusters(others: number, clusterSize: number): { readonly table: number; readonly blocks: number } {
  let [table, blocks] = [1, 1];
  for (;;) {
    const needed = Math.ceil((others + table + blocks) / (clusterSize / 2));
    const tableNeeded = Math.ceil((needed * ENTRY_BYTES) / clusterSize);
    if (needed <= blocks && tableNeeded <= table) return { table, blocks };
    [table, blocks] = [Math.max(table, tableNeeded), Math.max(blocks, needed)];
  }
}

function tableOf(bytes: number, count: number, offsetOf: (index: number) => number): Uint8Array {
  const table = new Uint8Array(bytes);
  const view = new DataView(table.buffer);
  for (let index = 0; index < count; index++) {
    view.setUint32(index * ENTRY_BYTES, Math.floor(offsetOf(index) / TWO_32));
    view.setUint32(index * ENTRY_BYTES + 4, offsetOf(index) % TWO_32);
  }
  return table;
}

function putEntry(view: DataView, index: number, offset: number): void {
  view.setUint32(index * ENTRY_BYTES, (COPIED_HIGH | Math.floor(offset / TWO_32)) >>> 0);
  view.setUint32(index * ENTRY_BYTES + 4, offset % TWO_32);
}

/** Every cluster of the file is counted once. */
async function sendRefcounts(clusters: number, blocks: number, clusterSize: number, sink: ByteSink): Promise<void> {
  const perBlock = clusterSize / 2;
  for (let block = 0; block < blocks; block++) {
    const bytes = new Uint8Array(clusterSize);
    const used = Math.min(perBlock, clusters - block * perBlock);
    for (let index = 0; index < used; index++) bytes[index * 2 + 1] = 1;
    await sink(bytes);
  }
}

async function sendL2Tables(
  source: JoinedDisk,
  clusterSize: number,
  tables: readonly number[],
  dataAt: number,
  sink: ByteSink,
): Promise<void> {
  const perTable = clusterSize / ENTRY_BYTES;
  const bytes = new Uint8Array(clusterSize);
  const view = new DataView(bytes.buffer);
  let [current, host] = [tables[0] ?? 0, dataAt];
  for await (const { first, end } of mappedRuns(source, clusterSize)) {
    for (let cluster = first; cluster < end; cluster++, host++) {
      const table = Math.floor(cluster / perTable);
      if (table !== current) {
        await sink(bytes);
        bytes.fill(0);
        current = table;
      }
      putEntry(view, cluster % perTable, host * clusterSize);
    }
  }
  if (tables.length > 0) await sink(bytes);
}
