import type { ErrorCode } from "../../src/base/error-codes.js";
import type { CreateQcow2Options } from "../../src/formats/qcow2/create-options.js";
import { all, type Change, fields, put32, put64, put8, putExtensions, text, truncate } from "./images.js";

/** A plain image with one fault, named by the error that it must give. */
export interface BadHeader {
  readonly code: ErrorCode;
  /** Tells cases of one code apart. */
  readonly what: string;
  readonly spoil: Change;
  /** What the message must contain: the field and the value found. */
  readonly says: readonly string[];
  /** The fault only stands in the way of writing; reading is fine. */
  readonly onlyForWriting?: boolean;
  /** `check` opens it and reports the code. */
  readonly checkReports?: boolean;
  /** Shown by `info` all the same. */
  readonly infoShows?: boolean;
  /** The stock tool sees nothing wrong, or sees it later: refusing is a decision of ours, and this is why. */
  readonly stockOpens?: string;
  readonly base?: CreateQcow2Options;
}

const BACKING_FORMAT = 0xe2792aca;
const BITMAPS = 0x23852875;
const CRYPT = 0x0537be77;
const DATA_FILE = 0x44415441;
const UNKNOWN = 0x12345678;

const incompatible = (bits: bigint): Change => put64(72, bits);
const autoclear = (bits: bigint): Change => put64(88, bits);
const noNames: Change = putExtensions([]);
const directory = (count: number, reserved: number, size: bigint, offset: bigint): Change =>
  all(autoclear(1n), putExtensions([[BITMAPS, fields(count, reserved, size, offset)]]));

export const BAD_HEADERS: readonly BadHeader[] = [
  { code: "QCOW2_MAGIC", what: "other magic", spoil: put32(0, 0x12345678), says: ["0x12345678", "0x514649fb"] },
  { code: "QCOW2_MAGIC", what: "empty file", spoil: truncate(0), says: ["0x00000000"] },
  { code: "QCOW2_VERSION", what: "version 4", spoil: put32(4, 4), says: ["version 4"] },
  { code: "QCOW2_VERSION", what: "version 1", spoil: put32(4, 1), says: ["version 1"] },
  {
    code: "QCOW2_TRUNCATED",
    what: "file ends in a version 2 header",
    spoil: truncate(50),
    says: ["50", "72"],
    base: { compat: "0.10" },
    stockOpens: "fields past the end count as zeros, so the table that is then missing is complained of",
  },
  { code: "QCOW2_CLUSTER_SIZE", what: "2^8", spoil: put32(20, 8), says: ["cluster_bits 8", "9"] },
  { code: "QCOW2_CLUSTER_SIZE", what: "2^22", spoil: put32(20, 22), says: ["cluster_bits 22", "21"] },
  { code: "QCOW2_CLUSTER_SIZE", what: "2^4294967295", spoil: put32(20, 0xffff_ffff), says: ["cluster_bits 4294967295"] },
  { code: "QCOW2_HEADER_TOO_SHORT", what: "96", spoil: put32(100, 96), says: ["header_length 96", "104"] },
  { code: "QCOW2_HEADER_TOO_SHORT", what: "file ends", spoil: truncate(100), says: ["header_length 0", "104"] },
  { code: "QCOW2_HEADER_TOO_LONG", what: "two clusters", spoil: put32(100, 0x20000), says: ["header_length 131072", "65536"] },
  {
    code: "QCOW2_HEADER_ALIGNMENT",
    what: "105",
    spoil: put32(100, 105),
    says: ["header_length 105", "multiple of 8"],
    stockOpens: "it goes on at the odd byte and finds no extensions; the format asks for a multiple of 8",
  },
  { code: "QCOW2_SIZE", what: "2^63", spoil: put64(24, 2n ** 63n), says: ["size 9223372036854775808"] },
  { code: "QCOW2_SIZE", what: "2^62", spoil: put64(24, 2n ** 62n), says: ["size 4611686018427387904"] },
  { code: "QCOW2_L1_TOO_LARGE", what: "2^31 entries", spoil: put32(36, 2 ** 31), says: ["l1_size 2147483648", "4194304"] },
  { code: "QCOW2_L1_TOO_LARGE", what: "one too many", spoil: put32(36, 4194305), says: ["l1_size 4194305", "4194304"] },
  { code: "QCOW2_L1_TOO_SMALL", what: "no entries", spoil: put32(36, 0), says: ["l1_size 0", "1"] },
  { code: "QCOW2_L1_TOO_SMALL", what: "disk of 2^50", spoil: put64(24, 2n ** 50n), says: ["l1_size 1", "2097152"] },
  { code: "QCOW2_L1_OFFSET", what: "misaligned", spoil: put64(40, 0x30200), says: ["l1_table_offset 0x30200", "65536"] },
  { code: "QCOW2_L1_OFFSET", what: "2^63", spoil: put64(40, 2n ** 63n), says: ["l1_table_offset 0x8000000000000000"] },
  {
    code: "QCOW2_L1_OFFSET",
    what: "2^57",
    spoil: put64(40, 2n ** 57n),
    says: ["l1_table_offset 0x200000000000000", "2^53"],
    stockOpens: "reads see zeros, writes fail",
  },
  {
    code: "QCOW2_L1_OFFSET",
    what: "over the header",
    spoil: put64(40, 0),
    says: ["l1_table_offset is 0"],
    checkReports: true,
    stockOpens: "the first write marks the image corrupt",
  },
  {
    code: "QCOW2_TRUNCATED",
    what: "L1 table past the end of the file",
    spoil: put64(40, 0x1_0000_0000),
    says: ["L1 table", "4294967304", "196616"],
    checkReports: true,
    stockOpens: "the whole disk reads as zeros",
  },
  {
    code: "QCOW2_REFTABLE_MISSING",
    what: "no clusters",
    spoil: put32(56, 0),
    says: ["refcount_table_clusters"],
    checkReports: true,
  },
  {
    code: "QCOW2_REFTABLE_TOO_LARGE",
    what: "one cluster too many",
    spoil: put32(56, 129),
    says: ["refcount_table_clusters 129", "128"],
  },
  {
    code: "QCOW2_REFTABLE_TOO_LARGE",
    what: "2^31 - 1",
    spoil: put32(56, 0x7fff_ffff),
    says: ["refcount_table_clusters 2147483647"],
  },
  {
    code: "QCOW2_REFTABLE_OFFSET",
    what: "misaligned",
    spoil: put64(48, 0x10001),
    says: ["refcount_table_offset 0x10001", "65536"],
  },
  {
    code: "QCOW2_REFTABLE_OFFSET",
    what: "over the header",
    spoil: put64(48, 0),
    says: ["refcount_table_offset is 0"],
    onlyForWriting: true,
    checkReports: true,
    stockOpens: "the first write marks the image corrupt",
  },
  {
    code: "QCOW2_TRUNCATED",
    what: "refcount table past the end of the file",
    spoil: put64(48, 2n ** 40n),
    says: ["refcount table", "1099511627776", "196616"],
    onlyForWriting: true,
    checkReports: true,
    stockOpens: "the first write marks the image corrupt",
  },
  { code: "QCOW2_REFCOUNT_WIDTH", what: "2^7 bits", spoil: put32(96, 7), says: ["refcount_order 7", "6"] },
  {
    code: "QCOW2_SNAPSHOTS_TOO_LARGE",
    what: "2^32 - 1",
    spoil: put32(60, 0xffff_ffff),
    says: ["nb_snapshots 4294967295", "65536"],
    checkReports: true,
  },
  {
    code: "QCOW2_SNAPSHOTS_OFFSET",
    what: "misaligned",
    spoil: all(put32(60, 1), put64(64, 0x30001)),
    says: ["snapshots_offset 0x30001", "65536"],
    checkReports: true,
  },
  { code: "QCOW2_CRYPT_METHOD", what: "method 3", spoil: put32(32, 3), says: ["crypt_method 3"] },
  {
    code: "QCOW2_CRYPT_HEADER",
    what: "missing",
    spoil: put32(32, 2),
    says: ["crypt_method 2", "missing"],
  },
  {
    code: "QCOW2_CRYPT_HEADER",
    what: "not expected",
    spoil: putExtensions([[CRYPT, fields(0x30000n, 592n)]]),
    says: ["crypt_method is 0"],
  },
  {
    code: "QCOW2_CRYPT_HEADER",
    what: "8 bytes",
    spoil: all(put32(32, 2), putExtensions([[CRYPT, fields(0x30000n)]])),
    says: ["8 bytes", "16"],
  },
  {
    code: "QCOW2_CRYPT_HEADER",
    what: "misaligned",
    spoil: all(put32(32, 2), putExtensions([[CRYPT, fields(0x30200n, 592n)]])),
    says: ["197120", "65536"],
  },
  {
    code: "QCOW2_CRYPT_HEADER",
    what: "half a terabyte",
    spoil: all(put32(32, 2), putExtensions([[CRYPT, fields(0x30000n, 2n ** 39n)]])),
    says: ["549755813888", "67108864"],
    stockOpens: "a moment later it finds no LUKS header there; with one, it would go on",
  },
  {
    code: "QCOW2_UNKNOWN_FEATURE",
    what: "bit 63",
    spoil: incompatible(2n ** 63n),
    says: ["0x8000000000000000", "Unknown incompatible feature: 8000000000000000"],
  },
  {
    code: "QCOW2_UNKNOWN_FEATURE",
    what: "named by the image, and another",
    // The first entry of the feature name table is given bit 9 and another name.
    spoil: all(incompatible(0x240n), put8(121, 9), (bytes) => bytes.set(text("funny\0"), 122)),
    says: ["funny, Unknown incompatible feature: 40"],
  },
  {
    code: "QCOW2_UNKNOWN_FEATURE",
    what: "no name table",
    spoil: all(incompatible(64n), noNames),
    says: ["Unknown incompatible feature: 40"],
  },
  {
    code: "QCOW2_MARKED_CORRUPT",
    what: "corrupt bit",
    spoil: incompatible(2n),
    says: ["incompatible bit 1"],
    onlyForWriting: true,
    checkReports: true,
  },
  {
    code: "QCOW2_DATA_FILE_MISSING",
    what: "no name",
    spoil: incompatible(4n),
    says: ["incompatible bit 2"],
    infoShows: true,
  },
  {
    code: "QCOW2_COMPRESSION_BIT",
    what: "bit without type",
    spoil: incompatible(8n),
    says: ["incompatible bit 3", "compression_type 0"],
  },
  {
    code: "QCOW2_COMPRESSION_BIT",
    what: "type without bit",
    spoil: put8(104, 1),
    says: ["incompatible bit 3", "compression_type 1"],
  },
  {
    code: "QCOW2_COMPRESSION_TYPE",
    what: "type 2",
    spoil: all(incompatible(8n), put8(104, 2)),
    says: ["compression_type 2"],
  },
  {
    code: "QCOW2_EXTENDED_L2",
    what: "clusters of 8 KiB",
    spoil: incompatible(16n),
    says: ["cluster_bits", "13", "14"],
    base: { clusterSize: 8192 },
  },
  {
    code: "QCOW2_DATA_FILE_RAW",
    what: "no data file",
    spoil: autoclear(2n),
    says: ["autoclear bit 1"],
    infoShows: true,
  },
  {
    code: "QCOW2_DATA_FILE_RAW",
    what: "with a backing file",
    spoil: all(
      incompatible(4n),
      autoclear(2n),
      putExtensions([[DATA_FILE, text("data.raw")]]),
      put64(8, 0x1000),
      put32(16, 4),
    ),
    says: ["autoclear bit 1", "backing file"],
    infoShows: true,
    checkReports: true,
    stockOpens: "it fails on the files that are named first",
  },
  {
    code: "QCOW2_BITMAPS",
    what: "no extension",
    spoil: autoclear(1n),
    says: ["autoclear_features 0x1", "missing"],
    onlyForWriting: true,
    stockOpens: "the first write takes the header for the bitmap directory and marks the image corrupt",
  },
  {
    code: "QCOW2_BITMAPS",
    what: "8 bytes",
    spoil: all(autoclear(1n), putExtensions([[BITMAPS, fields(0n)]])),
    says: ["8", "24"],
  },
  { code: "QCOW2_BITMAPS", what: "none", spoil: directory(0, 0, 0n, 0n), says: ["nb_bitmaps is 0"] },
  { code: "QCOW2_BITMAPS", what: "reserved", spoil: directory(1, 1, 32n, 0x30000n), says: ["reserved field is 1"] },
  { code: "QCOW2_BITMAPS", what: "65536", spoil: directory(65536, 0, 32n, 0x30000n), says: ["65536", "65535"] },
  { code: "QCOW2_BITMAPS", what: "misaligned", spoil: directory(1, 0, 32n, 0x30200n), says: ["0x30200", "65536"] },
  { code: "QCOW2_BITMAPS", what: "huge", spoil: directory(1, 0, 2n ** 27n, 0x30000n), says: ["134217728", "67107840"] },
  {
    code: "QCOW2_BACKING_OFFSET",
    what: "past the cluster",
    spoil: put64(8, 0x10001),
    says: ["backing_file_offset 65537", "65536"],
  },
  {
    code: "QCOW2_BACKING_OFFSET",
    what: "2^63",
    spoil: all(put64(8, 2n ** 63n), put32(16, 4)),
    says: ["backing_file_offset 9223372036854775808"],
  },
  {
    code: "QCOW2_BACKING_NAME",
    what: "1024 bytes",
    spoil: all(put64(8, 0x1000), put32(16, 1024)),
    says: ["backing_file_size 1024", "1023"],
  },
  {
    code: "QCOW2_BACKING_NAME",
    what: "past the cluster",
    spoil: all(put64(8, 0xfff0), put32(16, 17)),
    says: ["backing_file_size 17", "16"],
  },
  {
    code: "QCOW2_BACKING_FORMAT",
    what: "16 bytes",
    spoil: putExtensions([[BACKING_FORMAT, text("a".repeat(16))]]),
    says: ["16 bytes", "15"],
  },
  {
    code: "QCOW2_EXTENSION_LENGTH",
    what: "0xfffffff0",
    spoil: put32(116, 0xffff_fff0),
    says: ["4294967280 bytes", "byte 65536"],
  },
  {
    code: "QCOW2_EXTENSION_LENGTH",
    what: "one byte too long",
    spoil: put32(116, 0x10000 - 119),
    says: ["65417 bytes"],
  },
  {
    code: "QCOW2_EXTENSION_LENGTH",
    what: "into the backing file name",
    spoil: all(put64(8, 0x80), put32(16, 4)),
    says: ["384 bytes", "byte 128"],
  },
  {
    code: "QCOW2_EXTENSION_DUPLICATE",
    what: "backing format",
    spoil: putExtensions([
      [BACKING_FORMAT, text("raw")],
      [UNKNOWN, text("?")],
      [BACKING_FORMAT, text("qcow2")],
    ]),
    says: ["backing format extension (0xe2792aca)"],
    checkReports: true,
    stockOpens: "the last one holds",
  },
];
