import { SUBCLUSTERS } from "./limits.js";

/** Everything that follows from cluster size, refcount width and entry size, computed once per image. */
export interface Qcow2Geometry {
  /** Virtual size in bytes; of a disk that grows while it is open, what it was when it was opened (`ImageState.size`). */
  readonly size: number;
  readonly version: 2 | 3;
  readonly clusterBits: number;
  /** Bytes. */
  readonly clusterSize: number;
  /** Guest data is in an external data file, where each byte has its guest offset. */
  readonly externalData: boolean;
  /** Bytes per L2 entry: 8, or 16 with extended L2 entries. */
  readonly l2EntrySize: 8 | 16;
  /** Parts of a cluster with a state of their own: 32 with extended L2 entries, otherwise the cluster is its only part. */
  readonly subclusters: 1 | 32;
  /** Bytes. */
  readonly subclusterSize: number;
  /** Entries in one L2 table (one cluster). */
  readonly l2Entries: number;
  /** Guest bytes that one L2 table maps. */
  readonly l2Coverage: number;
  /** L1 entries needed for `size`. */
  readonly l1EntriesNeeded: number;
  readonly refcountOrder: number;
  /** Bits per refcount: 1 << refcountOrder. */
  readonly refcountBits: number;
  /** Largest count an entry can hold, capped at 2^53 - 1. */
  readonly maxRefcount: number;
  /** Counts in one refcount block (one cluster). */
  readonly refcountsPerBlock: number;
  /** Host bytes that one refcount block covers. */
  readonly refcountBlockCoverage: number;
}

export interface GeometryInput {
  readonly size: number;
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly refcountOrder: number;
  readonly extendedL2: boolean;
  /** Default false. */
  readonly externalData?: boolean;
}

/** Input must already be within the limits of `limits.ts`. */
export function qcow2Geometry(input: GeometryInput): Qcow2Geometry {
  const clusterSize = 2 ** input.clusterBits;
  const l2EntrySize = input.extendedL2 ? 16 : 8;
  const subclusters = input.extendedL2 ? SUBCLUSTERS : 1;
  const l2Entries = clusterSize / l2EntrySize;
  const l2Coverage = l2Entries * clusterSize;
  const refcountBits = 2 ** input.refcountOrder;
  const refcountsPerBlock = (clusterSize * 8) / refcountBits;
  return Object.freeze({
    size: input.size,
    version: input.version,
    clusterBits: input.clusterBits,
    clusterSize,
    externalData: input.externalData ?? false,
    l2EntrySize,
    subclusters,
    subclusterSize: clusterSize / subclusters,
    l2Entries,
    l2Coverage,
    l1EntriesNeeded: Math.ceil(input.size / l2Coverage),
    refcountOrder: input.refcountOrder,
    refcountBits,
    maxRefcount: refcountBits >= 53 ? Number.MAX_SAFE_INTEGER : 2 ** refcountBits - 1,
    refcountsPerBlock,
    refcountBlockCoverage: refcountsPerBlock * clusterSize,
  });
}
