/**
 * An entry of the snapshot table, decoded (qcow2 specification, "Snapshots"). Sizes and offsets in bytes. 64-bit values that nothing
 * here computes with stay `bigint`, so that they are written back as they were read.
 */
export interface Snapshot {
  /** Unique in the image; a decimal number in snapshots made by stock tools. */
  readonly id: string;
  readonly name: string;
  /** File offset of the L1 table; not checked, an image with a bad one can still be listed. */
  readonly l1Offset: bigint;
  /** L1 entries; not checked. */
  readonly l1Entries: number;
  /** Seconds since 1970. */
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
  /** Time that the guest had run, in nanoseconds. */
  readonly vmClock: bigint;
  /** Bytes of VM state, stored behind the end of the disk. */
  readonly vmStateSize: bigint;
  /** Virtual disk size; undefined in entries of version 2 that do not store it. */
  readonly diskSize: bigint | undefined;
  /** Instructions that the guest had executed; undefined when they were not counted. */
  readonly icount: bigint | undefined;
  /** Extra data behind the known fields, kept verbatim. */
  readonly unknownExtra: Uint8Array;
  /** Bytes of extra data that the entry has in the file. Version 3 demands 16. */
  readonly extraLength: number;
}
