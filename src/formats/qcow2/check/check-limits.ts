import { MiB } from "../../../base/units.js";

/** Bounds of a check: what a hostile image can make it spend. */

/** Clusters in a file, as the stock tool bounds them (its counts are indexed by a signed 32-bit number). */
export const MAX_FILE_CLUSTERS = 2 ** 31 - 1;

/**
 * Bytes of reference counts that any image may use. Beyond it the counts may take as many bytes as the file
 * takes on its disk: a sound image needs a quarter of its tables at most, a sparse hostile one far more.
 */
export const COUNTS_BASE_BYTES = 64 * MiB;

/** L1 entries read over all snapshots: enough for a thousand snapshots of a 32 TiB disk with 64 KiB clusters. */
export const MAX_SNAPSHOT_L1_ENTRIES = 2 ** 26;

/** Bitmap table entries read over all bitmaps: a 64 TiB disk has 2^21 for the finest common granularity. */
export const MAX_BITMAP_TABLE_ENTRIES = 2 ** 26;

/** Distinct L2 tables in one image: every entry of the largest L1 table, and as many again from snapshots, twice. */
export const MAX_L2_TABLES = 2 ** 23;

/**
 * L2 entries read again because their table is referred to more than once. Up to here each visit is made in turn, as
 * the stock tool does; beyond, a table is read once more at the end and counted as often as it was visited.
 */
export const MAX_REVISITED_ENTRIES = 2 ** 24;

/** Bytes that a repair may add to any file, for tables and data that are used twice. Beyond it, as much as the file has on its disk. */
export const MEND_BASE_BYTES = 256 * MiB;

/** Findings kept in the result: some MiB of objects. */
export const MAX_KEPT_FINDINGS = 16_384;

/** Characters in the messages of the findings that are kept: some quote names of snapshots, up to 64 KiB each. */
export const MAX_KEPT_FINDING_TEXT = 4 * MiB;

/** Findings handed to `onFinding`: a terminal or log is no use beyond a million lines. */
export const MAX_TOLD_FINDINGS = 2 ** 20;

/** Bytes of an L1 table held at a time. */
export const L1_PIECE_BYTES = MiB;

/** Bytes of tables read ahead in one go. */
export const TABLE_BATCH_BYTES = 2 * MiB;

/**
 * Bytes of L2 tables that any image may make the check read. Beyond it, eight times what the file takes on its disk:
 * tables in the holes of a sparse file are not worth reading, and a file system that compresses keeps within that.
 */
export const TABLE_READ_BASE_BYTES = 4096 * MiB;
export const TABLE_READ_FACTOR = 8;
