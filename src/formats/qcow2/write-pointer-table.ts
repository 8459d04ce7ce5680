import { viewOf } from "../../base/bytes.js";
import { ZcowError } from "../../base/errors.js";
import { isAligned } from "../../base/integers.js";
import { SECTOR_SIZE } from "../../base/units.js";
import { ZONE_CONDITION } from "../../zoned/zone-state.js";
import type { ZonedExtension } from "./zoned-extension.js";
import { LAYOUT_FORMATS, type TableFormat, WRITE_POINTER_BYTES } from "./zoned-layouts.js";

/**
 * Entries of the write-pointer table (docs/format.md, section 3): 8 bytes for each zone, the pointer as an
 * absolute byte offset on the disk and a bit that marks conventional zones, whose place depends on the layout.
 */

const TWO_32 = 0x1_0000_0000;
const CONVENTIONAL_HIGH = { 63: 0x8000_0000, 59: 0x0800_0000 } as const;
const STATE_HIGH = 0xf000_0000;

/** The zones and table format of an image, as far as entries need them. Sizes in bytes. */
export type TableShape = Pick<
  ZonedExtension,
  "layout" | "zoneCount" | "zoneSize" | "zoneCapacity" | "conventionalZones" | "tableByteOrder"
>;

/** Bytes of the table, without the slack of its last cluster. */
export function writePointerTableBytes(zoneCount: number): number {
  return zoneCount * WRITE_POINTER_BYTES;
}

/** One past the last byte of a zone that can be written: its capacity, or the end of a disk of `diskSize` bytes. */
export function writableEnd(
  shape: Pick<TableShape, "zoneSize" | "zoneCapacity">,
  zone: number,
  diskSize: number,
): number {
  return Math.min(zone * shape.zoneSize + shape.zoneCapacity, diskSize);
}

/** What can be wrong with an entry, as numbers that no pointer has: a table may have 2^20 bad ones, an error for each would take seconds. */
const WRONG_TYPE = -1;
const OUTSIDE = -2;
const ODD = -3;

/** The pointer of `zone`, or what is wrong with its entry. */
function parseEntry(table: DataView, zone: number, shape: TableShape, format: TableFormat, diskSize: number): number {
  const conventionalHigh = CONVENTIONAL_HIGH[format.conventionalBit];
  const start = zone * shape.zoneSize;
  const isConventional = (entryHigh(table, zone, shape) & conventionalHigh) !== 0;
  if (isConventional !== zone < shape.conventionalZones) return WRONG_TYPE;
  const pointer = storedPointer(table, zone, shape, format);
  if (isConventional) return pointer === start ? start : OUTSIDE;
  const end = writableEnd(shape, zone, diskSize);
  if (format.fullMayBeNextStart && pointer === start + shape.zoneSize) return end;
  if (pointer < start || pointer > end) return OUTSIDE;
  return isAligned(pointer, SECTOR_SIZE) || pointer === end ? pointer : ODD;
}

function entryHigh(table: DataView, zone: number, shape: TableShape): number {
  const little = shape.tableByteOrder === "little";
  return table.getUint32(zone * WRITE_POINTER_BYTES + (little ? 4 : 0), little);
}

/** The offset of an entry, without the bits that mean something else. */
function storedPointer(table: DataView, zone: number, shape: TableShape, format: TableFormat): number {
  const little = shape.tableByteOrder === "little";
  const low = table.getUint32(zone * WRITE_POINTER_BYTES + (little ? 0 : 4), little);
  const flags = CONVENTIONAL_HIGH[format.conventionalBit] | (format.storesState ? STATE_HIGH : 0);
  return ((entryHigh(table, zone, shape) & ~flags) >>> 0) * TWO_32 + low;
}

/** True when the entry of `zone` keeps all rules: what `decodeWritePointer` would accept. Makes no garbage. */
export function isWritePointerSound(table: DataView, zone: number, shape: TableShape, diskSize: number): boolean {
  return parseEntry(table, zone, shape, tableFormatOf(shape), diskSize) >= 0;
}

/**
 * The write pointer of `zone` from its entry: in [start, writable end], a multiple of 512; the start for conventional
 * zones. Throws `ZONED_CONVENTIONAL_BIT` when the entry's type is not that of the zone, `ZONED_WRITE_POINTER` when the
 * pointer lies outside, `ZONED_WRITE_POINTER_ALIGNMENT` when it is odd.
 */
export function decodeWritePointer(table: DataView, zone: number, shape: TableShape, diskSize: number): number {
  const parsed = parseEntry(table, zone, shape, tableFormatOf(shape), diskSize);
  if (parsed >= 0) return parsed;
  throw writePointerFault(table, zone, shape, diskSize);
}

/** What is wrong with the entry of `zone`, which is not sound: the error that `decodeWritePointer` throws. */
export function writePointerFault(table: DataView, zone: number, shape: TableShape, diskSize: number): ZcowError {
  const format = tableFormatOf(shape);
  const parsed = parseEntry(table, zone, shape, format, diskSize);
  const isConventional = zone < shape.conventionalZones;
  if (parsed === WRONG_TYPE) return wrongType(zone, !isConventional, shape, format);
  const pointer = storedPointer(table, zone, shape, format);
  if (parsed === ODD) return odd(zone, pointer);
  const start = zone * shape.zoneSize;
  return outside(zone, pointer, start, isConventional ? start : writableEnd(shape, zone, diskSize));
}

/** Writes the entry of `zone`. `pointer` is in [start, writable end]; ignored for conventional zones. */
export function encodeWritePointer(
  table: DataView,
  zone: number,
  pointer: number,
  shape: TableShape,
  diskSize: number,
): void {
  const format = tableFormatOf(shape);
  const little = shape.tableByteOrder === "little";
  const at = zone * WRITE_POINTER_BYTES;
  const isConventional = zone < shape.conventionalZones;
  const value = isConventional ? zone * shape.zoneSize : pointer;
  let high = Math.floor(value / TWO_32);
  if (isConventional) high += CONVENTIONAL_HIGH[format.conventionalBit];
  if (format.storesState) high += derivedCondition(zone, pointer, shape, diskSize) * 0x1000_0000;
  table.setUint32(little ? at + 4 : at, high, little);
  table.setUint32(little ? at : at + 4, value % TWO_32, little);
}

/** The state that follows from the pointer alone, as a number: what old tables store beside it. */
function derivedCondition(zone: number, pointer: number, shape: TableShape, diskSize: number): number {
  if (zone < shape.conventionalZones) return ZONE_CONDITION["not-wp"];
  if (pointer === zone * shape.zoneSize) return ZONE_CONDITION.empty;
  return pointer >= writableEnd(shape, zone, diskSize) ? ZONE_CONDITION.full : ZONE_CONDITION.closed;
}

/** The table of a disk on which nothing was written. `length` bytes, at least those of the entries. */
export function emptyWritePointerTable(shape: TableShape, diskSize: number, length: number): Uint8Array {
  const starts = Float64Array.from({ length: shape.zoneCount }, (_, zone) => zone * shape.zoneSize);
  return writePointerTable(shape, starts, diskSize, length);
}

/** A table of these write pointers, bytes on the disk. `length` bytes, at least those of the entries. */
export function writePointerTable(
  shape: TableShape,
  pointers: ArrayLike<number>,
  diskSize: number,
  length: number,
): Uint8Array {
  const table = new Uint8Array(length);
  const view = viewOf(table);
  for (let zone = 0; zone < shape.zoneCount; zone++) {
    encodeWritePointer(view, zone, pointers[zone] ?? zone * shape.zoneSize, shape, diskSize);
  }
  return table;
}

function tableFormatOf(shape: TableShape): TableFormat {
  const format = LAYOUT_FORMATS[shape.layout].table;
  if (format === undefined) throw new RangeError(`Zoned layout ${shape.layout} has no write-pointer table`);
  return format;
}

const hex = (value: number): string => `0x${value.toString(16)}`;

function wrongType(zone: number, isConventional: boolean, shape: TableShape, format: TableFormat): ZcowError {
  const state = isConventional ? "set" : "clear";
  return new ZcowError(
    "ZONED_CONVENTIONAL_BIT",
    `Write-pointer table: entry ${zone} has its conventional bit ${format.conventionalBit} ${state}, but exactly the first ${shape.conventionalZones} zones are conventional`,
    {
      data: {
        structure: "write-pointer table",
        field: `entry ${zone}`,
        value: isConventional,
        limit: shape.conventionalZones,
      },
    },
  );
}

function outside(zone: number, pointer: number, start: number, end: number): ZcowError {
  return new ZcowError(
    "ZONED_WRITE_POINTER",
    `Write-pointer table: entry ${zone} is ${hex(pointer)}, outside its zone's range ${hex(start)} to ${hex(end)}`,
    {
      data: {
        structure: "write-pointer table",
        field: `entry ${zone}`,
        value: pointer,
        limit: pointer < start ? start : end,
      },
    },
  );
}

function odd(zone: number, pointer: number): ZcowError {
  return new ZcowError(
    "ZONED_WRITE_POINTER_ALIGNMENT",
    `Write-pointer table: entry ${zone} is ${hex(pointer)}, not a multiple of ${SECTOR_SIZE}`,
    { data: { structure: "write-pointer table", field: `entry ${zone}`, value: pointer, limit: SECTOR_SIZE } },
  );
}
