import type { ErrorCode } from "../../src/base/error-codes.js";
import type { CreateZoneOptions } from "../../src/formats/qcow2/create-options.js";
import { all, type Change, fields, put32, put64, put8, putExtensions, TABLE_AT, truncate, ZONED_DATA_AT } from "./images.js";

/** A zoned image with one fault, named by the error that it must give. */
export interface BadZones {
  readonly code: ErrorCode;
  readonly what: string;
  /** Default: layout `current`. */
  readonly zone?: CreateZoneOptions;
  readonly spoil: Change;
  /** What the message must contain: the field and the value found. */
  readonly says: readonly string[];
  /** The header is fine; the table has the fault. */
  readonly inTable?: boolean;
  /** What each layout says, for errors that list them. */
  readonly reasons?: readonly string[];
}

const MiB = 2 ** 20;
const ZONED = 0x007a6264;
const NAMES_END = ZONED_DATA_AT - 8;
/** Fields of layout `current`, by their offset in the extension. */
const field = (at: number): number => ZONED_DATA_AT + at;
const entry = (zone: number): number => TABLE_AT + 8 * zone;
const extensionLength = (length: number): Change => put32(ZONED_DATA_AT - 4, length);

export const BAD_ZONES: readonly BadZones[] = [
  { code: "ZONED_MODEL", what: "model 2", spoil: put8(field(0), 2), says: ["zoned 2"] },
  { code: "ZONED_RESERVED", what: "byte 3", spoil: put8(field(3), 7), says: ["reserved byte 3 is 7"] },
  { code: "ZONED_ZONE_COUNT", what: "one too few", spoil: put32(field(4), 11), says: ["nr_zones 11", "12"] },
  { code: "ZONED_ZONE_COUNT", what: "2^32 - 1", spoil: put32(field(4), 0xffff_ffff), says: ["nr_zones 4294967295", "12"] },
  { code: "ZONED_ZONE_SIZE", what: "0", spoil: put64(field(8), 0), says: ["zone_size 0"] },
  { code: "ZONED_ZONE_SIZE_POWER", what: "12 MiB", spoil: put64(field(8), 12 * MiB), says: ["zone_size 12582912", "power of two"] },
  { code: "ZONED_ZONE_SIZE_CLUSTER", what: "32 KiB", spoil: put64(field(8), 32768), says: ["zone_size 32768", "65536"] },
  {
    code: "ZONED_FIELD_TOO_LARGE",
    what: "zone size above 2^53",
    spoil: put64(field(8), 2n ** 60n),
    says: ["zone_size 1152921504606846976", "2^53-1"],
  },
  {
    code: "ZONED_TOO_MANY_ZONES",
    what: "2^21 zones",
    spoil: all(put64(24, 2n ** 37n), put32(36, 256), put64(field(8), 65536), put64(field(16), 65536), put32(field(4), 2 ** 21)),
    says: ["2097152", "1048576"],
  },
  { code: "ZONED_CAPACITY", what: "0", spoil: put64(field(16), 0), says: ["zone_capacity 0"] },
  { code: "ZONED_CAPACITY", what: "above the zone size", spoil: put64(field(16), 8 * MiB + 512), says: ["zone_capacity 8389120", "8388608"] },
  { code: "ZONED_CAPACITY_ALIGNMENT", what: "odd", spoil: put64(field(16), 1000), says: ["zone_capacity 1000", "512"] },
  { code: "ZONED_CONVENTIONAL", what: "all zones", spoil: put32(field(32), 12), says: ["conventional_zones 12", "12 zones"] },
  { code: "ZONED_DISK_SIZE", what: "odd disk", spoil: put64(24, 96 * MiB - 1), says: ["size 100663295", "512"] },
  { code: "ZONED_TABLE_OFFSET", what: "0", spoil: put64(field(24), 0), says: ["zonedmeta_offset 0"] },
  { code: "ZONED_TABLE_OFFSET", what: "misaligned", spoil: put64(field(24), 0x30200), says: ["zonedmeta_offset 197120", "65536"] },
  { code: "ZONED_TABLE_OFFSET", what: "past the end", spoil: put64(field(24), 0x100000), says: ["zonedmeta_offset 1048576", "file at"] },
  { code: "ZONED_TABLE_OVERLAP", what: "L1 table", spoil: put64(field(24), 0x40000), says: ["262144", "L1 table"] },
  { code: "ZONED_TABLE_OVERLAP", what: "refcount table", spoil: put64(field(24), 0x10000), says: ["65536", "refcount table"] },
  { code: "ZONED_FEATURE_BIT", what: "bit missing", spoil: put64(72, 0), says: ["layout current", "incompatible bit 5", "clear"] },
  { code: "ZONED_FEATURE_BIT", what: "extension missing", spoil: put32(ZONED_DATA_AT - 8, 0x12345678), says: ["incompatible bit 5", "missing"] },
  { code: "ZONED_FEATURE_BIT", what: "extension says not zoned", spoil: put8(field(0), 0), says: ["incompatible bit 5", "not zoned"] },
  { code: "ZONED_FEATURE_BIT", what: "seed layout with the bit", zone: { layout: "seed" }, spoil: put64(72, 32), says: ["layout seed", "older"] },
  {
    code: "ZONED_VERSION",
    what: "version 2",
    spoil: all(put32(4, 2), (bytes) => bytes.copyWithin(72, NAMES_END, NAMES_END + 56), (bytes) => bytes.fill(0, 128, NAMES_END)),
    says: ["version 3, not 2"],
  },
  { code: "ZONED_EXTENSION_LENGTH", what: "0 bytes", spoil: putExtensions([[ZONED, new Uint8Array(0)]], NAMES_END), says: ["length 0"] },
  { code: "ZONED_EXTENSION_LENGTH", what: "43 bytes", spoil: extensionLength(43), says: ["length 43", "44"] },
  {
    code: "QCOW2_EXTENSION_DUPLICATE",
    what: "twice",
    spoil: (bytes) => {
      const data = bytes.slice(ZONED_DATA_AT, ZONED_DATA_AT + 44);
      return putExtensions([[ZONED, data], [ZONED, data]], NAMES_END)(bytes);
    },
    says: ["zoned extension (0x007a6264)"],
  },
  { code: "ZONED_TABLE_SIZE", what: "v8", zone: { layout: "v8" }, spoil: put64(field(40), 88), says: ["zonedmeta_size 88", "96"] },
  { code: "ZONED_MAX_APPEND", what: "above the capacity", zone: { layout: "v8" }, spoil: put32(field(36), 16 * MiB), says: ["max_append_bytes 16777216", "8388608"] },
  { code: "ZONED_MAX_APPEND", what: "odd", zone: { layout: "v8" }, spoil: put32(field(36), 1000), says: ["max_append_bytes 1000", "512"] },
  {
    code: "ZONED_LAYOUT_UNKNOWN",
    what: "48 bytes that fit nothing",
    zone: { layout: "v5" },
    spoil: put32(field(8), 0),
    says: ["48 bytes fits no layout", "v5: Zoned extension: zone_capacity 0", "append-limit:", "v3:"],
    reasons: ["append-limit: ", "v5: ", "v3: "],
  },
  {
    code: "ZONED_LAYOUT_UNKNOWN",
    what: "v3 with the bit of later layouts",
    zone: { layout: "v3" },
    spoil: put64(72, 32),
    says: ["v3: Header: incompatible bit 5", "v5: "],
    reasons: ["append-limit: ", "v5: ", "v3: "],
  },
  {
    code: "ZONED_WRITE_POINTER",
    what: "below the zone",
    spoil: put64(entry(3), 24 * MiB - 512),
    says: ["entry 3", "0x17ffe00", "0x1800000", "0x2000000"],
    inTable: true,
  },
  { code: "ZONED_WRITE_POINTER", what: "past the zone", spoil: put64(entry(3), 32 * MiB + 512), says: ["entry 3"], inTable: true },
  {
    code: "ZONED_WRITE_POINTER",
    what: "past the capacity",
    zone: { capacity: 6 * MiB },
    spoil: put64(entry(3), 30 * MiB + 512),
    says: ["entry 3", "0x1e00000"],
    inTable: true,
  },
  { code: "ZONED_WRITE_POINTER", what: "above 2^53", spoil: put64(entry(3), 2n ** 62n), says: ["entry 3"], inTable: true },
  { code: "ZONED_WRITE_POINTER", what: "conventional zone moved", spoil: put64(entry(1), 2n ** 63n + 512n), says: ["entry 1"], inTable: true },
  { code: "ZONED_WRITE_POINTER_ALIGNMENT", what: "odd", spoil: put64(entry(3), 24 * MiB + 100), says: ["entry 3", "512"], inTable: true },
  { code: "ZONED_CONVENTIONAL_BIT", what: "set too late", spoil: put64(entry(2), 2n ** 63n + BigInt(16 * MiB)), says: ["entry 2", "first 2 zones"], inTable: true },
  { code: "ZONED_CONVENTIONAL_BIT", what: "missing", spoil: put64(entry(0), 0), says: ["entry 0", "first 2 zones"], inTable: true },
  { code: "ZONED_TABLE_OFFSET", what: "file cut off in the table", spoil: truncate(TABLE_AT + 50), says: ["past the end of the file at 196658"] },
];

/** Bytes that no layout has, kept behind those of the current one. */
export const LONGER_EXTENSION: Change = (bytes) => {
  const data = bytes.slice(ZONED_DATA_AT, ZONED_DATA_AT + 44);
  return putExtensions([[ZONED, Uint8Array.of(...data, ...fields(0xdeadbeef, 1, 2, 3, 4))]], NAMES_END)(bytes);
};
