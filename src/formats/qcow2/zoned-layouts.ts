import { viewOf, writeU64 } from "../../base/bytes.js";
import { ZcowError } from "../../base/errors.js";
import { SECTOR_SIZE } from "../../base/units.js";
import type { ZonedExtension, ZonedLayout } from "./zoned-extension.js";

/**
 * The published layouts of the zoned header extension, as data (docs/format.md, sections 2.1 and 2.2).
 *
 * All begin with u8 zoned and three reserved bytes; the fields after that differ in order, width and unit.
 */

/** Byte offset and width of a stored field. */
interface FieldPlace {
  readonly at: number;
  readonly bytes: 4 | 8;
}

export type StoredField =
  | "zoneCount"
  | "zoneSize"
  | "zoneCapacity"
  | "conventionalZones"
  | "maxActiveZones"
  | "maxOpenZones"
  | "maxAppend"
  | "tableSize"
  | "tableOffset";

/** What the fields are called where the layouts are described. */
const STORED_NAMES: Readonly<Record<StoredField, string>> = {
  zoneCount: "nr_zones",
  zoneSize: "zone_size",
  zoneCapacity: "zone_capacity",
  conventionalZones: "conventional_zones",
  maxActiveZones: "max_active_zones",
  maxOpenZones: "max_open_zones",
  maxAppend: "max_append",
  tableSize: "zonedmeta_size",
  tableOffset: "zonedmeta_offset",
};

/** How a write-pointer table entry of 8 bytes is laid out. */
export interface TableFormat {
  /** `found`: whatever the writing machine used; told by consistency, little-endian when created here. */
  readonly byteOrder: "big" | "found";
  readonly conventionalBit: 63 | 59;
  /** Bits 60..63 hold the number of the zone state, which readers ignore. */
  readonly storesState: boolean;
  /** A zone that was finished may hold the start of the next zone. */
  readonly fullMayBeNextStart: boolean;
}

export interface LayoutFormat {
  /** Bytes of the fields. */
  readonly length: number;
  readonly fields: Readonly<Partial<Record<StoredField, FieldPlace>>>;
  /** Bytes in one unit of maxAppend. */
  readonly appendUnit: number;
  readonly table: TableFormat | undefined;
  /** Images of this layout carry incompatible feature bit 5; older ones must not. */
  readonly featureBit: boolean;
  /** Its writers kept all alignment rules; for the others a breach makes the image read-only. */
  readonly strict: boolean;
}

const u32 = (at: number): FieldPlace => ({ at, bytes: 4 });
const u64 = (at: number): FieldPlace => ({ at, bytes: 8 });

const NEW_TABLE: TableFormat = { byteOrder: "big", conventionalBit: 63, storesState: false, fullMayBeNextStart: false };
const OLD_TABLE: TableFormat = {
  byteOrder: "found",
  conventionalBit: 59,
  storesState: false,
  fullMayBeNextStart: true,
};

const OLD_FIELDS = {
  zoneSize: u32(4),
  zoneCapacity: u32(8),
  conventionalZones: u32(12),
  zoneCount: u32(16),
  maxActiveZones: u32(20),
  maxOpenZones: u32(24),
  maxAppend: u32(28),
} as const;

export const LAYOUT_FORMATS: Readonly<Record<ZonedLayout, LayoutFormat>> = {
  current: {
    length: 44,
    fields: {
      zoneCount: u32(4),
      zoneSize: u64(8),
      zoneCapacity: u64(16),
      tableOffset: u64(24),
      conventionalZones: u32(32),
      maxActiveZones: u32(36),
      maxOpenZones: u32(40),
    },
    appendUnit: 1,
    table: NEW_TABLE,
    featureBit: true,
    strict: true,
  },
  "append-limit": {
    length: 48,
    fields: {
      zoneCount: u32(4),
      zoneSize: u64(8),
      zoneCapacity: u64(16),
      conventionalZones: u32(24),
      maxActiveZones: u32(28),
      maxOpenZones: u32(32),
      maxAppend: u32(36),
      tableOffset: u64(40),
    },
    appendUnit: 1,
    table: NEW_TABLE,
    featureBit: true,
    strict: true,
  },
  v8: {
    length: 56,
    fields: {
      zoneSize: u64(4),
      zoneCapacity: u64(12),
      conventionalZones: u32(20),
      zoneCount: u32(24),
      maxActiveZones: u32(28),
      maxOpenZones: u32(32),
      maxAppend: u32(36),
      tableSize: u64(40),
      tableOffset: u64(48),
    },
    appendUnit: 1,
    table: OLD_TABLE,
    featureBit: true,
    strict: false,
  },
  v5: {
    length: 48,
    fields: { ...OLD_FIELDS, tableSize: u64(32), tableOffset: u64(40) },
    appendUnit: 1,
    table: OLD_TABLE,
    featureBit: true,
    strict: false,
  },
  v3: {
    length: 48,
    fields: { ...OLD_FIELDS, tableOffset: u64(32), tableSize: u64(40) },
    appendUnit: SECTOR_SIZE,
    table: { ...OLD_TABLE, storesState: true },
    featureBit: false,
    strict: false,
  },
  seed: { length: 32, fields: OLD_FIELDS, appendUnit: SECTOR_SIZE, table: undefined, featureBit: false, strict: false },
};

/** Shortest extension of any layout. */
export const MIN_ZONED_EXTENSION_BYTES = 32;

/** Bytes of a write-pointer table entry. */
export const WRITE_POINTER_BYTES = 8;

const RESERVED_BYTES = [1, 2, 3] as const;

/** The zoned byte: 0 none, 1 host-managed, others unknown. */
export function zonedModel(data: Uint8Array): number {
  return data[0] ?? 0;
}

/**
 * Decodes `data` by the fields of `layout`, without judging whether it makes sense. Throws `ZONED_TABLE_SIZE` for a stored table size that contradicts the zone count,
 * `ZONED_FIELD_TOO_LARGE` for 64-bit values above 2^53 - 1. `data` has at least the layout's length.
 */
export function decodeZonedExtension(
  data: Uint8Array,
  layout: ZonedLayout,
  tableByteOrder: "big" | "little",
): ZonedExtension {
  const format = LAYOUT_FORMATS[layout];
  const read = (field: StoredField): number => readField(viewOf(data), format.fields[field], field) ?? 0;
  const zoneCount = read("zoneCount");
  const extension: ZonedExtension = {
    layout,
    zoneCount,
    zoneSize: read("zoneSize"),
    zoneCapacity: read("zoneCapacity"),
    conventionalZones: read("conventionalZones"),
    maxActiveZones: read("maxActiveZones"),
    maxOpenZones: read("maxOpenZones"),
    maxAppendBytes: format.fields.maxAppend === undefined ? undefined : read("maxAppend") * format.appendUnit,
    tableOffset: format.fields.tableOffset === undefined ? undefined : read("tableOffset"),
    tableByteOrder,
    tail: data.slice(format.length),
  };
  const tableSize = readField(viewOf(data), format.fields.tableSize, "tableSize");
  if (tableSize !== undefined && tableSize !== zoneCount * WRITE_POINTER_BYTES)
    throw badTableSize(tableSize, zoneCount);
  return extension;
}

function readField(view: DataView, place: FieldPlace | undefined, field: StoredField): number | undefined {
  if (place === undefined) return undefined;
  if (place.bytes === 4) return view.getUint32(place.at);
  const value = view.getBigUint64(place.at);
  if (value <= Number.MAX_SAFE_INTEGER) return Number(value);
  throw new ZcowError(
    "ZONED_FIELD_TOO_LARGE",
    `Zoned extension: ${STORED_NAMES[field]} ${value} is above 2^53-1, the largest supported value`,
    {
      data: { structure: "zoned extension", field: STORED_NAMES[field], value, limit: Number.MAX_SAFE_INTEGER },
    },
  );
}

/** A stored field as it is; undefined in layouts without it. Throws `ZONED_FIELD_TOO_LARGE`. */
export function storedField(data: Uint8Array, layout: ZonedLayout, field: StoredField): number | undefined {
  return readField(viewOf(data), LAYOUT_FORMATS[layout].fields[field], field);
}

/** Overwrites one field of `data` in place; nothing in layouts without it. Throws `ZONED_LAYOUT_FIELD`. */
export function setStoredField(data: Uint8Array, layout: ZonedLayout, field: StoredField, value: number): void {
  const place = LAYOUT_FORMATS[layout].fields[field];
  if (place !== undefined) writeField(viewOf(data), place, field, value, layout);
}

/** Throws `ZONED_RESERVED` unless the three bytes after the model are zero, as in every layout. */
export function checkReserved(data: Uint8Array): void {
  for (const at of RESERVED_BYTES) {
    const value = data[at] as number;
    if (value === 0) continue;
    throw new ZcowError("ZONED_RESERVED", `Zoned extension: reserved byte ${at} is ${value}, not 0`, {
      data: { structure: "zoned extension", field: "reserved", offset: at, value, limit: 0 },
    });
  }
}

function badTableSize(tableSize: number, zoneCount: number): ZcowError {
  const needed = zoneCount * WRITE_POINTER_BYTES;
  return new ZcowError(
    "ZONED_TABLE_SIZE",
    `Zoned extension: zonedmeta_size ${tableSize} is not ${needed}, the table of ${zoneCount} zones`,
    {
      data: { structure: "zoned extension", field: "zonedmeta_size", value: tableSize, limit: needed },
    },
  );
}

/** The bytes of a host-managed extension in its layout, unknown tail included. Throws `ZONED_LAYOUT_FIELD` for a value that the layout has no room for. */
export function encodeZonedExtension(extension: ZonedExtension): Uint8Array {
  const format = LAYOUT_FORMATS[extension.layout];
  const data = new Uint8Array(format.length + extension.tail.length);
  data[0] = 1;
  const values: Readonly<Record<StoredField, number | undefined>> = {
    zoneCount: extension.zoneCount,
    zoneSize: extension.zoneSize,
    zoneCapacity: extension.zoneCapacity,
    conventionalZones: extension.conventionalZones,
    maxActiveZones: extension.maxActiveZones,
    maxOpenZones: extension.maxOpenZones,
    maxAppend: (extension.maxAppendBytes ?? 0) / format.appendUnit,
    tableSize: extension.zoneCount * WRITE_POINTER_BYTES,
    tableOffset: extension.tableOffset,
  };
  for (const [field, place] of Object.entries(format.fields) as [StoredField, FieldPlace][]) {
    writeField(viewOf(data), place, field, values[field] ?? 0, extension.layout);
  }
  data.set(extension.tail, format.length);
  return data;
}

function writeField(view: DataView, place: FieldPlace, field: StoredField, value: number, layout: ZonedLayout): void {
  const limit = place.bytes === 4 ? 0xffff_ffff : Number.MAX_SAFE_INTEGER;
  if (!Number.isInteger(value) || value < 0 || value > limit) {
    throw new ZcowError(
      "ZONED_LAYOUT_FIELD",
      `Zoned extension: ${STORED_NAMES[field]} ${value} does not fit layout ${layout}, which stores it in ${place.bytes * 8} bits (largest ${limit})`,
      {
        data: { structure: "zoned extension", field: STORED_NAMES[field], value, limit },
      },
    );
  }
  if (place.bytes === 4) view.setUint32(place.at, value);
  else writeU64(view, place.at, value);
}
