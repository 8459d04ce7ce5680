import { viewOf, writeU64 } from "../../../base/bytes.js";
import { ZcowError } from "../../../base/errors.js";
import { alignUp } from "../../../base/integers.js";
import { decodeFileName, encodeFileName } from "../file-name.js";
import { MAX_BITMAP_DIRECTORY_BYTES, MAX_BITMAPS, MAX_HOST_OFFSET } from "../limits.js";

/** Longest name of a bitmap in bytes, set by the format. */
export const MAX_BITMAP_NAME_BYTES = 1023;
/** Smallest granularity, one sector, as a power of two. */
export const MIN_GRANULARITY_BITS = 9;
/** Largest granularity, 2 GiB, as a power of two. */
export const MAX_GRANULARITY_BITS = 31;
/** Largest bitmap table in entries: QEMU's own limit. */
const MAX_TABLE_ENTRIES = 0x0800_0000;

/** The bitmap may not match the data: its writer did not close the image, or could not keep it. */
export const BITMAP_IN_USE = 1;
/** Every write is to be recorded in the bitmap. */
export const BITMAP_AUTO = 2;
/** The bitmap may be used without understanding its extra data. */
const BITMAP_EXTRA_COMPATIBLE = 4;
const KNOWN_FLAGS = BITMAP_IN_USE | BITMAP_AUTO | BITMAP_EXTRA_COMPATIBLE;

const ENTRY_BYTES = 24;
const DIRTY_TRACKING = 1;

/** An entry of the bitmap directory (qcow2 specification, "Bitmap directory entry"). Offsets in bytes. */
export interface BitmapEntry {
  readonly tableOffset: number;
  readonly tableEntries: number;
  readonly flags: number;
  readonly granularityBits: number;
  readonly name: string;
  /** Data of unknown meaning, kept. */
  readonly extra: Uint8Array;
}

/** False when the extra data of the bitmap has to be understood, which nobody does. */
export function isUsable({ flags, extra }: BitmapEntry): boolean {
  return extra.length === 0 || (flags & BITMAP_EXTRA_COMPATIBLE) !== 0;
}

/** Decodes and checks a directory of `count` entries. Throws `QCOW2_BITMAPS` naming the entry, the field and the limit. */
export function decodeDirectory(bytes: Uint8Array, count: number, clusterSize: number): BitmapEntry[] {
  const entries: BitmapEntry[] = [];
  const names = new Set<string>();
  let at = 0;
  for (let index = 0; index < count; index++) {
    const { entry, length } = decodeEntry(bytes, at, index, clusterSize);
    if (names.has(entry.name))
      throw fault(index, "name", entry.name, "unique", `the name '${entry.name}' appears twice`);
    names.add(entry.name);
    entries.push(entry);
    at += length;
  }
  if (at === bytes.length) return entries;
  throw fault(
    count,
    "size",
    bytes.length,
    at,
    `the directory has ${bytes.length} bytes, its ${count} entries have ${at}`,
  );
}

/** Decodes and checks the entry at byte `at`; `length` is where the next one begins. Throws `QCOW2_BITMAPS`. */
export function decodeEntry(
  bytes: Uint8Array,
  at: number,
  index: number,
  clusterSize: number,
): { readonly entry: BitmapEntry; readonly length: number } {
  const left = bytes.length - at;
  if (left < ENTRY_BYTES) throw fault(index, "size", left, ENTRY_BYTES, "the directory ends inside the entry");
  const view = viewOf(bytes);
  const tableOffset = view.getBigUint64(at);
  const tableEntries = view.getUint32(at + 8);
  const flags = view.getUint32(at + 12);
  const type = view.getUint8(at + 16);
  const granularityBits = view.getUint8(at + 17);
  const nameLength = view.getUint16(at + 18);
  const extraLength = view.getUint32(at + 20);
  const length = alignUp(ENTRY_BYTES + nameLength + extraLength, 8);
  if (length > left) throw fault(index, "size", length, left, "the directory ends inside the entry");
  if (tableOffset === 0n || tableOffset % BigInt(clusterSize) !== 0n || tableOffset > MAX_HOST_OFFSET) {
    throw fault(
      index,
      "bitmap_table_offset",
      tableOffset,
      clusterSize,
      "the table is at no multiple of the cluster size",
    );
  }
  if (tableEntries === 0 || tableEntries > MAX_TABLE_ENTRIES) {
    throw fault(index, "bitmap_table_size", tableEntries, MAX_TABLE_ENTRIES, `the table has ${tableEntries} entries`);
  }
  if ((flags & ~KNOWN_FLAGS) !== 0) throw fault(index, "flags", flags, KNOWN_FLAGS, "reserved flags are set");
  if (type !== DIRTY_TRACKING) throw fault(index, "type", type, DIRTY_TRACKING, `type ${type} is not known`);
  if (granularityBits < MIN_GRANULARITY_BITS || granularityBits > MAX_GRANULARITY_BITS) {
    throw fault(index, "granularity_bits", granularityBits, MAX_GRANULARITY_BITS, `granularity 2^${granularityBits}`);
  }
  if (nameLength === 0 || nameLength > MAX_BITMAP_NAME_BYTES) {
    throw fault(index, "name_size", nameLength, MAX_BITMAP_NAME_BYTES, `the name has ${nameLength} bytes`);
  }
  const nameAt = at + ENTRY_BYTES + extraLength;
  const entry = {
    tableOffset: Number(tableOffset),
    tableEntries,
    flags,
    granularityBits,
    name: decodeFileName(bytes.subarray(nameAt, nameAt + nameLength)),
    extra: bytes.slice(at + ENTRY_BYTES, nameAt),
  };
  return { entry, length };
}

/** The directory with `entries`, in their order. Throws `QCOW2_BITMAPS` when there are more than fit the limits. */
export function encodeDirectory(entries: readonly BitmapEntry[]): Uint8Array {
  const names = entries.map(({ name }) => encodeFileName(name));
  const lengths = entries.map(({ extra }, index) =>
    alignUp(ENTRY_BYTES + extra.length + (names[index]?.length ?? 0), 8),
  );
  const total = lengths.reduce((sum, length) => sum + length, 0);
  if (entries.length > MAX_BITMAPS || total > MAX_BITMAP_DIRECTORY_BYTES) {
    throw fault(
      entries.length,
      "count",
      entries.length,
      MAX_BITMAPS,
      `${entries.length} bitmaps of ${total} bytes do not fit`,
    );
  }
  const bytes = new Uint8Array(total);
  const view = viewOf(bytes);
  let at = 0;
  entries.forEach((entry, index) => {
    const name = names[index] ?? new Uint8Array(0);
    writeU64(view, at, entry.tableOffset);
    view.setUint32(at + 8, entry.tableEntries);
    view.setUint32(at + 12, entry.flags);
    view.setUint8(at + 16, DIRTY_TRACKING);
    view.setUint8(at + 17, entry.granularityBits);
    view.setUint16(at + 18, name.length);
    view.setUint32(at + 20, entry.extra.length);
    bytes.set(entry.extra, at + ENTRY_BYTES);
    bytes.set(name, at + ENTRY_BYTES + entry.extra.length);
    at += lengths[index] ?? 0;
  });
  return bytes;
}

function fault(
  index: number,
  field: string,
  value: number | bigint | string,
  limit: number | string,
  what: string,
): ZcowError {
  return new ZcowError("QCOW2_BITMAPS", `Bitmap directory, entry ${index}: ${what}`, {
    data: { structure: "bitmap directory", field, value, limit },
  });
}
