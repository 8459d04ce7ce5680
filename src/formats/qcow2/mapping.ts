import { ZcowError } from "../../base/errors.js";
import type { MaybePromise } from "../../base/maybe-promise.js";
import { type HostOffset, hostOffset } from "../../base/units.js";
import type { Storage } from "../../storage/storage.js";
import {
  compressedIsCorrupt,
  compressedLength,
  compressedOffset,
  isCopied,
  isL1EntryCorrupt,
  L2_COMPRESSED,
  L2_CORRUPT,
  L2_DATA,
  L2_UNALLOCATED,
  L2_ZERO,
  type L2Kind,
  l1Offset,
  l2Kind,
  l2Offset,
  l2ReservedLow,
  ZERO_LOW,
} from "./entries.js";
import type { Qcow2Geometry } from "./geometry.js";
import type { RootTable } from "./root-table.js";
import { subclusterRun } from "./subcluster-runs.js";
import { isStored, subclusterMask } from "./subclusters.js";
import type { TableCache, TableSlice } from "./table-cache.js";

const TWO_32 = 0x1_0000_0000;
/** Bits of an L1 or L2 entry's upper half that a table or data cluster in reach does not have (63, COPIED, apart). */
const UNUSUAL_HIGH = 0x7fe0_0000;
const OFFSET_HIGH = 0x001f_ffff;
/** Bytes of an entry that is not extended. */
const STANDARD_BYTES = 8;

/**
 * Neighbouring guest subclusters that are mapped alike; those with a host cluster are neighbours in the file too. Without
 * extended L2 entries each cluster is its only subcluster, and none is `preallocated`.
 */
export type MappingRun =
  | { readonly kind: "unallocated" | "zero"; readonly count: number }
  | MappedRun
  | {
      readonly kind: "compressed";
      /** Subclusters, all of one cluster. */
      readonly count: number;
      /** Where the compressed data of the cluster begins in the file. */
      readonly host: HostOffset;
      /** Bytes from `host` to the end of the last sector; those after the compressed data belong to others. */
      readonly length: number;
    };

/** A run with host clusters. `preallocated`: nothing is stored, so what shows is what shows where nothing is mapped. */
export interface MappedRun {
  readonly kind: "data" | "zero-preallocated" | "preallocated";
  /** Subclusters. */
  readonly count: number;
  /** Where the first subcluster is in the file. */
  readonly host: HostOffset;
  /** Exactly one reference: may be written in place. */
  readonly copied: boolean;
}

/** The run has host clusters. */
export function isMapped(run: MappingRun): run is MappedRun {
  return run.kind === "data" || run.kind === "zero-preallocated" || run.kind === "preallocated";
}

/**
 * Guest clusters to host clusters (qcow2 specification, "Cluster mapping"): the L1 table in memory, L2 tables through
 * the cache. Knows how to find and decode entries; who changes them, and when, is the engine's business.
 * Tables and entries are found by guest cluster; runs are counted in subclusters.
 */
export class GuestMap {
  readonly l1: RootTable;
  readonly cache: TableCache;
  /** L2 entries in one slice. */
  readonly sliceEntries: number;
  readonly #storage: Storage;
  readonly #geometry: Qcow2Geometry;
  readonly #inverseL2Entries: number;
  readonly #sliceShift: number;
  /** Bytes per entry, as a shift. */
  readonly #entryShift: number;
  /** Bytes per subcluster, as a shift. */
  readonly #subclusterShift: number;
  /** Entries are extended ones. */
  readonly isExtended: boolean;
  readonly #lowMask: number;
  readonly #reservedLow: number;
  readonly #externalData: boolean;

  constructor(storage: Storage, geometry: Qcow2Geometry, l1: RootTable, cache: TableCache) {
    this.#storage = storage;
    this.#geometry = geometry;
    this.l1 = l1;
    this.cache = cache;
    this.sliceEntries = cache.sliceSize / geometry.l2EntrySize;
    this.#inverseL2Entries = 1 / geometry.l2Entries;
    this.#sliceShift = Math.log2(this.sliceEntries);
    this.#entryShift = Math.log2(geometry.l2EntrySize);
    this.#subclusterShift = Math.log2(geometry.subclusterSize);
    this.isExtended = geometry.subclusters > 1;
    this.#lowMask = geometry.clusterSize - 1;
    this.#reservedLow = l2ReservedLow(geometry);
    this.#externalData = geometry.externalData;
  }

  /** The L1 entry that maps guest cluster `cluster`. */
  l1Index(cluster: number): number {
    return Math.floor(cluster * this.#inverseL2Entries);
  }

  /** The slice that maps `cluster` when it is in memory and nothing is odd about its table; otherwise undefined. */
  peek(cluster: number): TableSlice | undefined {
    const index = Math.floor(cluster * this.#inverseL2Entries);
    const view = this.l1.view;
    const high = view.getUint32(index * 8);
    const low = view.getUint32(index * 8 + 4);
    if (((high & UNUSUAL_HIGH) | (low & this.#lowMask)) !== 0) return undefined;
    const table = (high & OFFSET_HIGH) * TWO_32 + low;
    if (table === 0) return undefined;
    const slice = (cluster - index * this.#geometry.l2Entries) >>> this.#sliceShift;
    return this.cache.peek(table + slice * this.cache.sliceSize);
  }

  /** Byte position of the entry of `cluster` in its slice. */
  entryAt(cluster: number): number {
    const inTable = cluster - Math.floor(cluster * this.#inverseL2Entries) * this.#geometry.l2Entries;
    return (inTable & (this.sliceEntries - 1)) << this.#entryShift;
  }

  /** Host offset of plain data when the entry at `at` says so and nothing else; -1 for everything that needs thought. */
  static dataOffset(view: DataView, at: number, lowMask: number): number {
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    if (((high & UNUSUAL_HIGH) | (low & lowMask)) !== 0) return -1;
    const offset = (high & OFFSET_HIGH) * TWO_32 + low;
    return offset === 0 ? -1 : offset;
  }

  /** The bytes [inside, inside + length) of the cluster whose extended entry is at `at` are all stored in its host cluster. */
  isAllStored(view: DataView, at: number, inside: number, length: number): boolean {
    const first = inside >>> this.#subclusterShift;
    const last = (inside + length - 1) >>> this.#subclusterShift;
    return isStored(view, at, subclusterMask(first, last + 1));
  }

  /** As `dataOffset`, and the cluster may be written in place. */
  static writableDataOffset(view: DataView, at: number, lowMask: number): number {
    return view.getUint8(at) < 0x80 ? -1 : GuestMap.dataOffset(view, at, lowMask);
  }

  /**
   * Host offset of `count` clusters of one slice that are reserved in a row and read as zeros, when nobody shares them and nothing is
   * odd about their entries, which are not extended; otherwise 0.
   */
  reservedHost({ view }: TableSlice, cluster: number, count: number): number {
    const { clusterSize } = this.#geometry;
    let host = 0;
    for (let i = 0, at = this.entryAt(cluster); i < count; i++, at += STANDARD_BYTES) {
      const high = view.getUint32(at);
      const low = view.getUint32(at + 4);
      const isUsual = (high & UNUSUAL_HIGH) === 0 && (low & this.#reservedLow) === 0;
      if (!isUsual || !isCopied(high) || (low & ZERO_LOW) === 0) return 0;
      const offset = (high & OFFSET_HIGH) * TWO_32 + low - ZERO_LOW;
      if (i === 0) host = offset;
      else if (offset !== host + i * clusterSize) return 0;
    }
    return host;
  }

  /** Host offset of an extended entry's cluster when nobody shares it and nothing is odd about the entry; otherwise 0. */
  ownHostCluster(slice: TableSlice, cluster: number): number {
    const { view } = slice;
    const at = this.entryAt(cluster);
    const host = GuestMap.writableDataOffset(view, at, this.#lowMask);
    return host > 0 && isStored(view, at, 0) ? host : 0;
  }

  /** File offset of the L2 table of L1 entry `index`, 0 = none. Throws `IMAGE_CORRUPT`. */
  tableAt(index: number): number {
    const high = this.l1.high(index);
    const low = this.l1.low(index);
    const offset = l1Offset(high, low);
    if (isL1EntryCorrupt(high, low, this.#geometry.clusterSize)) {
      throw new ZcowError(
        "IMAGE_CORRUPT",
        `L1 entry ${index} is 0x${(BigInt(high) * 0x1_0000_0000n + BigInt(low)).toString(16)}: its L2 table offset is not a multiple of ${this.#geometry.clusterSize} below 2^53, or reserved bits are set`,
        {
          data: { structure: "L1 table", field: `entry ${index}`, value: offset, limit: this.#geometry.clusterSize },
          stockText: `L2 table offset 0x${offset.toString(16)} unaligned (L1 index: 0x${index.toString(16)})`,
        },
      );
    }
    return offset;
  }

  /** The L2 table of L1 entry `index` has one reference: it may be changed in place. */
  isTableCopied(index: number): boolean {
    return isCopied(this.l1.high(index));
  }

  /** First guest cluster that L1 entry `index` maps. */
  firstCluster(index: number): number {
    return index * this.#geometry.l2Entries;
  }

  /** File offset of the slice that maps `cluster`, in a table at `table`. */
  sliceOffset(table: number, cluster: number): number {
    const inTable = cluster - this.l1Index(cluster) * this.#geometry.l2Entries;
    return table + (inTable >>> this.#sliceShift) * this.cache.sliceSize;
  }

  /** Guest clusters from `cluster` to the end of its slice. */
  clustersToSliceEnd(cluster: number): number {
    return this.sliceEntries - (this.entryAt(cluster) >>> this.#entryShift);
  }

  /** Guest subclusters from `subcluster` to the end of its slice. */
  subclustersToSliceEnd(subcluster: number): number {
    const { subclusters } = this.#geometry;
    const inside = subcluster % subclusters;
    return this.clustersToSliceEnd((subcluster - inside) / subclusters) * subclusters - inside;
  }

  /** The slice that maps `cluster`, held until `cache.release`. Throws `IMAGE_CORRUPT` for a table past the end of the file. */
  acquire(table: number, cluster: number): MaybePromise<TableSlice> {
    const offset = this.sliceOffset(table, cluster);
    const slice = this.cache.acquireCached(offset);
    if (slice !== undefined) return slice;
    if (offset >= this.#storage.size()) throw this.#tablePastEnd(table, cluster);
    return this.cache.acquire(offset);
  }

  /**
   * The run that starts at guest `subcluster`, at most `limit` subclusters, not past the end of the slice.
   * Throws `IMAGE_CORRUPT` when the first entry breaks the rules; a later one ends the run.
   */
  runAt(slice: TableSlice, subcluster: number, limit: number): MappingRun {
    return this.isExtended
      ? this.#extendedRunAt(slice, subcluster, limit)
      : this.#standardRunAt(slice, subcluster, limit);
  }

  #extendedRunAt(slice: TableSlice, subcluster: number, limit: number): MappingRun {
    const { subclusters } = this.#geometry;
    const inside = subcluster % subclusters;
    const cluster = (subcluster - inside) / subclusters;
    const at = this.entryAt(cluster);
    const run = subclusterRun(slice.view, at, inside, limit, this.#geometry, this.#reservedLow);
    if (run === "corrupt entry") throw this.#corruptEntry(slice, at, cluster);
    if (run === "corrupt maps") throw this.#corruptMaps(slice, at, cluster);
    if (run.kind === "compressed") this.#refuseCorruptDescriptor(slice, at, cluster);
    if (isMapped(run)) this.#refuseElsewhere(slice, at, run.host, subcluster * this.#geometry.subclusterSize);
    return run;
  }

  #standardRunAt(slice: TableSlice, cluster: number, limit: number): MappingRun {
    const { view } = slice;
    const first = this.entryAt(cluster);
    const end = Math.min(view.byteLength, first + limit * STANDARD_BYTES);
    const high = view.getUint32(first);
    const low = view.getUint32(first + 4);
    const kind = this.#kindOf(high, low);
    if (kind === L2_CORRUPT) throw this.#corruptEntry(slice, first, cluster);
    if (kind === L2_COMPRESSED) {
      this.#refuseCorruptDescriptor(slice, first, cluster);
      const { clusterBits } = this.#geometry;
      const host = hostOffset(compressedOffset(high, low, clusterBits));
      return { kind: "compressed", count: 1, host, length: compressedLength(high, low, clusterBits) };
    }
    if (kind === L2_UNALLOCATED || kind === L2_ZERO) {
      let at = first + STANDARD_BYTES;
      while (at < end && this.#kindOf(view.getUint32(at), view.getUint32(at + 4)) === kind) {
        at += STANDARD_BYTES;
      }
      return { kind: kind === L2_ZERO ? "zero" : "unallocated", count: (at - first) / STANDARD_BYTES };
    }
    const host = l2Offset(high, low);
    this.#refuseElsewhere(slice, first, host, cluster * this.#geometry.clusterSize);
    const copied = isCopied(high);
    let next = host + this.#geometry.clusterSize;
    let at = first + STANDARD_BYTES;
    for (; at < end; at += STANDARD_BYTES) {
      const nextHigh = view.getUint32(at);
      const nextLow = view.getUint32(at + 4);
      if (this.#kindOf(nextHigh, nextLow) !== kind || isCopied(nextHigh) !== copied) break;
      if (l2Offset(nextHigh, nextLow) !== next) break;
      next += this.#geometry.clusterSize;
    }
    return {
      kind: kind === L2_DATA ? "data" : "zero-preallocated",
      count: (at - first) / STANDARD_BYTES,
      host: hostOffset(host),
      copied,
    };
  }

  #kindOf(high: number, low: number): L2Kind {
    return l2Kind(high, low, this.#reservedLow, this.#externalData);
  }

  /** In an external data file every byte has its guest offset. */
  #refuseElsewhere(slice: TableSlice, at: number, host: number, guest: number): void {
    if (!this.#externalData || host === guest) return;
    const table = slice.at - (slice.at % this.#geometry.clusterSize);
    const index = (slice.at - table + at) / this.#geometry.l2EntrySize;
    throw new ZcowError(
      "IMAGE_CORRUPT",
      `L2 entry ${index} of the table at file offset ${table} maps guest offset ${guest} to offset ${host} of the external data file, where every byte has its guest offset`,
      {
        data: { structure: "L2 table", field: `entry ${index}`, offset: slice.at + at, value: host, limit: guest },
        stockText: `External data file host cluster offset 0x${host.toString(16)} does not match guest cluster offset: 0x${guest.toString(16)}, L2 index: 0x${index.toString(16)})`,
      },
    );
  }

  #tablePastEnd(table: number, cluster: number): ZcowError {
    const index = this.l1Index(cluster);
    const size = this.#storage.size();
    return new ZcowError(
      "IMAGE_CORRUPT",
      `L1 entry ${index}: its L2 table at file offset ${table} lies past the end of the file, which has ${size} bytes`,
      {
        data: { structure: "L1 table", field: `entry ${index}`, offset: table, value: table, limit: size },
        stockText: `L2 table offset 0x${table.toString(16)} past the end of the file (L1 index: 0x${index.toString(16)})`,
      },
    );
  }

  #refuseCorruptDescriptor(slice: TableSlice, at: number, cluster: number): void {
    const high = slice.view.getUint32(at);
    const low = slice.view.getUint32(at + 4);
    if (this.#externalData) throw this.#compressedOutside(slice, at, cluster);
    if (compressedIsCorrupt(high, low, this.#geometry.clusterBits)) throw this.#corruptEntry(slice, at, cluster);
  }

  #compressedOutside(slice: TableSlice, at: number, cluster: number): ZcowError {
    const offset = cluster * this.#geometry.clusterSize;
    const table = slice.at - (slice.at % this.#geometry.clusterSize);
    const index = (slice.at - table + at) / this.#geometry.l2EntrySize;
    return new ZcowError(
      "IMAGE_CORRUPT",
      `L2 entry ${index} of the table at file offset ${table} (guest offset ${offset}) is a compressed cluster, which an image with an external data file cannot have`,
      {
        data: { structure: "L2 table", field: `entry ${index}`, offset: slice.at + at },
        stockText: `Compressed cluster entry found in image with external data file (L2 offset: 0x${table.toString(16)}, L2 index: 0x${index.toString(16)})`,
      },
    );
  }

  #corruptEntry(slice: TableSlice, at: number, cluster: number): ZcowError {
    const value = slice.view.getBigUint64(at);
    const offset = l2Offset(slice.view.getUint32(at), slice.view.getUint32(at + 4));
    const table = slice.at - (slice.at % this.#geometry.clusterSize);
    const index = (slice.at - table + at) / this.#geometry.l2EntrySize;
    return new ZcowError(
      "IMAGE_CORRUPT",
      `L2 entry ${index} of the table at file offset ${table} (guest offset ${cluster * this.#geometry.clusterSize}) is 0x${value.toString(16)}: its cluster offset is not a multiple of ${this.#geometry.clusterSize} below 2^53, or reserved bits are set`,
      {
        data: { structure: "L2 table", field: `entry ${index}`, offset: slice.at + at, value },
        stockText: `Cluster allocation offset 0x${offset.toString(16)} unaligned (L2 offset: 0x${table.toString(16)}, L2 index: 0x${index.toString(16)})`,
      },
    );
  }

  #corruptMaps(slice: TableSlice, at: number, cluster: number): ZcowError {
    const value = slice.view.getBigUint64(at + 8);
    const table = slice.at - (slice.at % this.#geometry.clusterSize);
    const index = (slice.at - table + at) / this.#geometry.l2EntrySize;
    return new ZcowError(
      "IMAGE_CORRUPT",
      `L2 entry ${index} of the table at file offset ${table} (guest offset ${cluster * this.#geometry.clusterSize}) has the subcluster map 0x${value.toString(16)}: subclusters are both stored and zero, or stored without a host cluster, or the cluster is compressed`,
      {
        data: { structure: "L2 table", field: `entry ${index}`, offset: slice.at + at + 8, value },
        stockText: `Invalid cluster entry found  (L2 offset: ${hex(table)}, L2 index: ${hex(index)})`,
      },
    );
  }
}

/** As C prints it with "%#x". */
function hex(value: number): string {
  return value === 0 ? "0" : `0x${value.toString(16)}`;
}
