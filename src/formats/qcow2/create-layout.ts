import { alignUp, ceilDiv } from "../../base/integers.js";
import { ClusterPlan } from "./create-allocation.js";
import type { Qcow2Geometry } from "./geometry.js";
import { TABLE_ENTRY_BYTES } from "./limits.js";
import { writePointerTableBytes } from "./write-pointer-table.js";

export const PREALLOCATIONS = ["off", "metadata", "falloc", "full"] as const;
export type Preallocation = (typeof PREALLOCATIONS)[number];

export interface LayoutInput {
  readonly geometry: Qcow2Geometry;
  readonly preallocation: Preallocation;
  /** Zones with a write-pointer table; 0 = none. */
  readonly tableZones: number;
}

/** Guest clusters mapped one after the other to host clusters. */
export interface MappedRun {
  readonly guest: number;
  readonly host: number;
  readonly count: number;
}

/** Where everything of a new image lies. All positions in clusters. */
export interface ImageLayout {
  readonly plan: ClusterPlan;
  /** 0 when the disk is empty and has no L1 table. */
  readonly l1Cluster: number;
  /** 0 = none. */
  readonly writePointerCluster: number;
  readonly writePointerClusters: number;
  /** Cluster of each L2 table by L1 index; none unless preallocated. */
  readonly l2Clusters: readonly number[];
  readonly mapped: readonly MappedRun[];
  /** Bytes in the file at least, so that the last data cluster is inside. */
  readonly dataEnd: number;
}

/** QEMU preallocates at most this much in one go. */
const MAX_GO_BYTES = 0x7fff_ffff;

/** Lays out a new image as stock QEMU does: header, refcount table and block, [write-pointer table,] L1, then first fit. */
export function planImage(input: LayoutInput): ImageLayout {
  const { geometry, preallocation, tableZones } = input;
  const { clusterSize } = geometry;
  const plan = new ClusterPlan(geometry);
  const writePointerClusters = ceilDiv(writePointerTableBytes(tableZones), clusterSize);
  const writePointerCluster = writePointerClusters === 0 ? 0 : plan.allocate(writePointerClusters);
  const l1Clusters = ceilDiv(geometry.l1EntriesNeeded * TABLE_ENTRY_BYTES, clusterSize);
  const l1Cluster = l1Clusters === 0 ? 0 : plan.allocate(l1Clusters);
  const base = { plan, l1Cluster, writePointerCluster, writePointerClusters };
  if (preallocation === "off") return { ...base, l2Clusters: [], mapped: [], dataEnd: 0 };
  if (geometry.externalData) return { ...base, ...mapOutside(plan, geometry) };
  if (preallocation === "metadata") return { ...base, ...mapPieceByPiece(plan, geometry) };
  const tablesEnd = alignUp((l1Cluster + l1Clusters) * clusterSize, clusterSize) / clusterSize;
  return { ...base, ...mapInOnePiece(plan, geometry, lastUsed(plan, tablesEnd)) };
}

function lastUsed(plan: ClusterPlan, atLeast: number): number {
  return Math.max(atLeast, plan.used.runs.at(-1)?.end ?? 0);
}

type Mapping = Pick<ImageLayout, "l2Clusters" | "mapped" | "dataEnd">;

/** The data is in another file, each byte at its guest offset. */
function mapOutside(plan: ClusterPlan, geometry: Qcow2Geometry): Mapping {
  const total = ceilDiv(geometry.size, geometry.clusterSize);
  const l2Clusters = Array.from({ length: ceilDiv(total, geometry.l2Entries) }, () => plan.allocate(1));
  return { l2Clusters, mapped: total === 0 ? [] : [{ guest: 0, host: 0, count: total }], dataEnd: 0 };
}

/** `metadata`: as if the disk were written from start to end. */
function mapPieceByPiece(plan: ClusterPlan, geometry: Qcow2Geometry): Mapping {
  const { clusterSize, l2Entries } = geometry;
  const total = ceilDiv(geometry.size, clusterSize);
  const goClusters = Math.floor(MAX_GO_BYTES / clusterSize);
  const l2Clusters: number[] = [];
  const mapped: MappedRun[] = [];
  for (let guest = 0; guest < total; ) {
    const run = mapGo(guest, Math.min(goClusters, total - guest));
    mapped.push(run);
    guest += run.count;
  }
  const last = mapped.at(-1);
  // The file ends where a write of the whole disk would have left it: behind the last subcluster.
  const ahead = last === undefined ? 0 : (last.host - last.guest) * clusterSize;
  return {
    l2Clusters,
    mapped,
    dataEnd: last === undefined ? 0 : ahead + alignUp(geometry.size, geometry.subclusterSize),
  };

  /** One run of adjacent host clusters, L2 table by L2 table, until a table gets in between. */
  function mapGo(guest: number, count: number): MappedRun {
    let host = 0;
    let done = 0;
    while (done < count) {
      const at = guest + done;
      l2Clusters[Math.floor(at / l2Entries)] ??= plan.allocate(1);
      const want = Math.min(count - done, l2Entries - (at % l2Entries));
      const got = done === 0 ? want : plan.allocateAt(host + done, want);
      if (done === 0) host = plan.allocate(want);
      if (got === 0) break;
      done += got;
    }
    return { guest, host, count: done };
  }
}

/** `falloc` and `full`: the data in one piece behind a refcount table that counts it, the L2 tables where there is room. */
function mapInOnePiece(plan: ClusterPlan, geometry: Qcow2Geometry, end: number): Mapping {
  const { clusterSize, l2Entries } = geometry;
  const total = ceilDiv(geometry.size, clusterSize);
  const tables = ceilDiv(total, l2Entries);
  const host = plan.replaceTable(end, total + tables + 1, false);
  plan.allocateAt(host, total);
  const l2Clusters = Array.from({ length: tables }, () => plan.allocate(1));
  const mapped = total === 0 ? [] : [{ guest: 0, host, count: total }];
  return { l2Clusters, mapped, dataEnd: (host + total) * clusterSize };
}
