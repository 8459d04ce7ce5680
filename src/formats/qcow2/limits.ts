import { KiB, MiB } from "../../base/units.js";

/**
 * Every bound on what is read from a qcow2 file, checked before anything is allocated.
 *
 * The values are those that QEMU applies, so that an image is accepted here exactly when it is accepted
 * there; where the reason is memory, the reason says how much a hostile header could ask for.
 */

/** Smallest cluster_bits: the format's own minimum, one 512-byte sector. */
export const MIN_CLUSTER_BITS = 9;
/** Largest cluster_bits, 2 MiB clusters: one table or cluster buffer stays small; no known writer goes beyond. */
export const MAX_CLUSTER_BITS = 21;
/** Subclusters in a cluster with extended L2 entries: one for each bit of the two 32-bit maps in an entry. */
export const SUBCLUSTERS = 32;
/** Smallest cluster_bits with extended L2 entries: 32 subclusters of at least 512 bytes. */
export const MIN_EXTENDED_L2_CLUSTER_BITS = 14;
/** Largest refcount_order: counts are at most 64 bits wide. */
export const MAX_REFCOUNT_ORDER = 6;

/** Bytes of the fixed part of a version 2 header. */
export const HEADER_LENGTH_V2 = 72;
/** Smallest header_length of version 3: everything up to header_length itself. */
export const MIN_HEADER_LENGTH_V3 = 104;
/** Bytes of the header fields known here (version 3, compression type and its padding included). */
export const KNOWN_HEADER_LENGTH = 112;

/** Largest L1 table in bytes: enough for 2 EiB with 64 KiB clusters, and it is held in memory whole. */
export const MAX_L1_BYTES = 32 * MiB;
/** Largest refcount table in bytes: it is held in memory whole. */
export const MAX_REFTABLE_BYTES = 8 * MiB;
/** Largest number of snapshots: the table is held in memory, with names. */
export const MAX_SNAPSHOTS = 65_536;
/** Largest snapshot table in bytes: 1 KiB for each of the largest number of entries. */
export const MAX_SNAPSHOT_TABLE_BYTES = 64 * MiB;
/**
 * Largest total of all ids and names of snapshots in bytes: 16,384 names of the longest that QEMU gives. QEMU reads more, but none is
 * ever written; bytes that are no UTF-8 take twice their number in memory, and six times as JSON.
 */
export const MAX_SNAPSHOT_TEXT_BYTES = 4 * MiB;
/** Largest extra data of a snapshot table entry in bytes: the stock tool's bound; it is kept in memory, and little is known of it. */
export const MAX_SNAPSHOT_EXTRA_BYTES = 1024;
/** Bytes of the fixed part of a snapshot table entry, the least an entry can take. */
export const SNAPSHOT_ENTRY_MIN_BYTES = 40;
/** Largest number of bitmaps: QEMU's own limit. */
export const MAX_BITMAPS = 65_535;
/** Bytes in the largest directory entry of a bitmap without extra data (24 + a name of 1023 bytes, padded). */
const MAX_BITMAP_ENTRY_BYTES = KiB;
/** Largest bitmap directory in bytes: every bitmap with the longest name. */
export const MAX_BITMAP_DIRECTORY_BYTES = MAX_BITMAPS * MAX_BITMAP_ENTRY_BYTES;

/**
 * Largest encryption header in bytes: eight key slots take 2 MiB at most, so this leaves room for whatever a writer keeps behind them.
 * Every cluster of it is remembered, so that nothing is written over it.
 */
export const MAX_CRYPT_HEADER_BYTES = 64 * MiB;

/** Longest backing file name in bytes, set by the format. */
export const MAX_BACKING_NAME_BYTES = 1023;
/** Longest backing format name in bytes: QEMU keeps it in a 16-byte string; no format name is near that. */
export const MAX_BACKING_FORMAT_BYTES = 15;
/** Bytes in one entry of the feature name table. */
export const FEATURE_NAME_ENTRY_BYTES = 48;
/** Bytes of the name in a feature name table entry. */
export const FEATURE_NAME_BYTES = 46;
/** Bytes in an L1, L2 or refcount table entry. */
export const TABLE_ENTRY_BYTES = 8;

/**
 * Largest file offset used, exclusive. Entries have room for 2^56; QEMU stops at its signed 64-bit arithmetic.
 * Above 2^53 a double cannot tell one byte from the next, and no file system holds such a file.
 */
export const MAX_HOST_OFFSET = Number.MAX_SAFE_INTEGER;
/** Largest table end that QEMU accepts: offsets are signed 64-bit there. */
export const MAX_TABLE_END = 2n ** 63n - 1n;
