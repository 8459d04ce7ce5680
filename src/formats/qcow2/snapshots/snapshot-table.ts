import { viewOf } from "../../../base/bytes.js";
import { ZcowError } from "../../../base/errors.js";
import { alignUp } from "../../../base/integers.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { KiB } from "../../../base/units.js";
import type { Storage } from "../../../storage/storage.js";
import { decodeFileName, encodeFileName } from "../file-name.js";
import type { UnresolvedHeader } from "../header.js";
import {
  MAX_SNAPSHOT_EXTRA_BYTES,
  MAX_SNAPSHOT_TABLE_BYTES,
  MAX_SNAPSHOT_TEXT_BYTES,
  MAX_SNAPSHOTS,
  SNAPSHOT_ENTRY_MIN_BYTES,
} from "../limits.js";
import type { Snapshot } from "./snapshot.js";

/** Byte offset of each field of an entry, big-endian. */
const ENTRY = {
  l1Offset: 0,
  l1Entries: 8,
  idLength: 12,
  nameLength: 14,
  dateSeconds: 16,
  dateNanoseconds: 20,
  vmClock: 24,
  vmStateSize: 32,
  extraLength: 36,
} as const;

/** Byte offset of each field of the extra data. */
const EXTRA = { vmStateSize: 0, diskSize: 8, icount: 16 } as const;
/** Bytes of the extra data whose meaning is known. */
export const KNOWN_EXTRA_BYTES = 24;
const NO_ICOUNT = 0xffff_ffff_ffff_ffffn;
/** Entries begin at multiples of this many bytes. */
export const ENTRY_ALIGNMENT = 8;
const MAX_TEXT_BYTES = 0xffff;
/** Bytes of the table read at once; an entry never takes more than its fixed part, extra data and two texts. */
const WINDOW_BYTES = 256 * KiB;

/** The snapshot table of an image, in memory. */
export interface SnapshotTable {
  readonly snapshots: readonly Snapshot[];
  /** Bytes that the table takes in the file. */
  readonly length: number;
}

/**
 * Reads the snapshot table, in pieces of bounded size. Throws `QCOW2_SNAPSHOT_TABLE` for more than 1 KiB of extra data in
 * an entry, a table of more than 64 MiB, or more than 4 MiB of ids and names. L1 tables are not looked at.
 */
export async function readSnapshotTable(
  storage: Storage,
  header: Pick<UnresolvedHeader, "snapshotCount" | "snapshotsOffset">,
): Promise<SnapshotTable> {
  const snapshots: Snapshot[] = [];
  const window = new Uint8Array(header.snapshotCount === 0 ? 0 : WINDOW_BYTES);
  let start = 0;
  let loaded = 0;
  let length = 0;
  let text = 0;
  for (let index = 0; index < header.snapshotCount; index++) {
    const at = alignUp(length, ENTRY_ALIGNMENT);
    if (loaded - at < SNAPSHOT_ENTRY_MIN_BYTES + MAX_SNAPSHOT_EXTRA_BYTES + 2 * MAX_TEXT_BYTES) {
      const wait = storage.read(header.snapshotsOffset + at, window);
      if (isPromise(wait)) await wait;
      start = at;
      loaded = at + window.length;
    }
    const entry = window.subarray(at - start);
    const bytes = entryBytes(entry, index);
    text += textBytes(entry);
    if (text > MAX_SNAPSHOT_TEXT_BYTES) throw tooMuchText(index);
    snapshots.push(decodeEntry(entry.subarray(0, bytes)));
    length = at + bytes;
    if (length > MAX_SNAPSHOT_TABLE_BYTES) throw tableTooLarge(length);
  }
  return { snapshots, length };
}

function entryBytes(entry: Uint8Array, index: number): number {
  const view = viewOf(entry);
  const extra = view.getUint32(ENTRY.extraLength);
  if (extra > MAX_SNAPSHOT_EXTRA_BYTES) {
    throw new ZcowError(
      "QCOW2_SNAPSHOT_TABLE",
      `Snapshot table: entry ${index} has ${extra} bytes of extra data, above the limit of ${MAX_SNAPSHOT_EXTRA_BYTES}`,
      {
        data: {
          structure: "snapshot table",
          field: `entry ${index}, extra_data_size`,
          value: extra,
          limit: MAX_SNAPSHOT_EXTRA_BYTES,
        },
        stockText: `Too much extra metadata in snapshot table entry ${index}\nYou can force-remove this extra metadata with qemu-img check -r all`,
      },
    );
  }
  return SNAPSHOT_ENTRY_MIN_BYTES + extra + textBytes(entry);
}

/** Bytes of the id and the name of the entry at the start of `entry`. */
export function textBytes(entry: Uint8Array): number {
  const view = viewOf(entry);
  return view.getUint16(ENTRY.idLength) + view.getUint16(ENTRY.nameLength);
}

/** What a table is refused with whose ids and names get too long with entry `index`. */
export function tooMuchText(index: number): ZcowError {
  return new ZcowError(
    "QCOW2_SNAPSHOT_TABLE",
    `Snapshot table: with entry ${index} the ids and names take more than ${MAX_SNAPSHOT_TEXT_BYTES} bytes`,
    { data: { structure: "snapshot table", field: `entry ${index}, name_size`, limit: MAX_SNAPSHOT_TEXT_BYTES } },
  );
}

function tableTooLarge(length: number): ZcowError {
  return new ZcowError(
    "QCOW2_SNAPSHOT_TABLE",
    `The snapshot table takes ${length} bytes or more, above the limit of ${MAX_SNAPSHOT_TABLE_BYTES}`,
    {
      data: {
        structure: "snapshot table",
        field: "length",
        value: length,
        limit: MAX_SNAPSHOT_TABLE_BYTES,
        errno: "EFBIG",
      },
      stockText: "Snapshot table is too big",
    },
  );
}

/** Shared: a table may have 65,536 entries without any. */
const NO_EXTRA = new Uint8Array(0);

/** Decodes the bytes of one entry; its extra data must be at most 1 KiB. */
export function decodeEntry(entry: Uint8Array): Snapshot {
  const view = viewOf(entry);
  const extraLength = view.getUint32(ENTRY.extraLength);
  const extraEnd = SNAPSHOT_ENTRY_MIN_BYTES + extraLength;
  const idEnd = extraEnd + view.getUint16(ENTRY.idLength);
  const extraU64 = (at: number): bigint | undefined =>
    at + 8 <= extraLength ? view.getBigUint64(SNAPSHOT_ENTRY_MIN_BYTES + at) : undefined;
  const icount = extraU64(EXTRA.icount);
  return {
    id: decodeFileName(entry.subarray(extraEnd, idEnd)),
    name: decodeFileName(entry.subarray(idEnd)),
    l1Offset: view.getBigUint64(ENTRY.l1Offset),
    l1Entries: view.getUint32(ENTRY.l1Entries),
    dateSeconds: view.getUint32(ENTRY.dateSeconds),
    dateNanoseconds: view.getUint32(ENTRY.dateNanoseconds),
    vmClock: view.getBigUint64(ENTRY.vmClock),
    vmStateSize: extraU64(EXTRA.vmStateSize) ?? BigInt(view.getUint32(ENTRY.vmStateSize)),
    diskSize: extraU64(EXTRA.diskSize),
    icount: icount === NO_ICOUNT ? undefined : icount,
    unknownExtra:
      extraLength > KNOWN_EXTRA_BYTES ? entry.slice(SNAPSHOT_ENTRY_MIN_BYTES + KNOWN_EXTRA_BYTES, extraEnd) : NO_EXTRA,
    extraLength,
  };
}

/**
 * The bytes of a snapshot table. Every entry gets all known extra data, whatever it had; `diskSize` stands in where an entry does not
 * store its own. Throws `SNAPSHOT_LIMIT` for more than 65,536 snapshots, 64 MiB, or 4 MiB of ids and names.
 */
export function encodeSnapshotTable(snapshots: readonly Snapshot[], diskSize: number): Uint8Array {
  if (snapshots.length > MAX_SNAPSHOTS) throw tooMany("number of snapshots", snapshots.length, MAX_SNAPSHOTS);
  const entries = snapshots.map((snapshot) => encodeEntry(snapshot, diskSize));
  const text = entries.reduce((sum, entry) => sum + textBytes(entry), 0);
  if (text > MAX_SNAPSHOT_TEXT_BYTES) throw tooMany("length of all ids and names", text, MAX_SNAPSHOT_TEXT_BYTES);
  const length = entries.reduce((sum, entry) => alignUp(sum, ENTRY_ALIGNMENT) + entry.length, 0);
  if (length > MAX_SNAPSHOT_TABLE_BYTES) throw tooMany("size of the snapshot table", length, MAX_SNAPSHOT_TABLE_BYTES);
  const table = new Uint8Array(length);
  let at = 0;
  for (const entry of entries) {
    at = alignUp(at, ENTRY_ALIGNMENT);
    table.set(entry, at);
    at += entry.length;
  }
  return table;
}

function encodeEntry(snapshot: Snapshot, diskSize: number): Uint8Array {
  const id = encodeFileName(snapshot.id).subarray(0, MAX_TEXT_BYTES);
  const name = encodeFileName(snapshot.name).subarray(0, MAX_TEXT_BYTES);
  const extraLength = KNOWN_EXTRA_BYTES + snapshot.unknownExtra.length;
  const extraEnd = SNAPSHOT_ENTRY_MIN_BYTES + extraLength;
  const bytes = new Uint8Array(extraEnd + id.length + name.length);
  const view = viewOf(bytes);
  view.setBigUint64(ENTRY.l1Offset, snapshot.l1Offset);
  view.setUint32(ENTRY.l1Entries, snapshot.l1Entries);
  view.setUint16(ENTRY.idLength, id.length);
  view.setUint16(ENTRY.nameLength, name.length);
  view.setUint32(ENTRY.dateSeconds, snapshot.dateSeconds);
  view.setUint32(ENTRY.dateNanoseconds, snapshot.dateNanoseconds);
  view.setBigUint64(ENTRY.vmClock, snapshot.vmClock);
  view.setUint32(ENTRY.vmStateSize, snapshot.vmStateSize > 0xffff_ffffn ? 0 : Number(snapshot.vmStateSize));
  view.setUint32(ENTRY.extraLength, extraLength);
  view.setBigUint64(SNAPSHOT_ENTRY_MIN_BYTES + EXTRA.vmStateSize, snapshot.vmStateSize);
  view.setBigUint64(SNAPSHOT_ENTRY_MIN_BYTES + EXTRA.diskSize, snapshot.diskSize ?? BigInt(diskSize));
  view.setBigUint64(SNAPSHOT_ENTRY_MIN_BYTES + EXTRA.icount, snapshot.icount ?? NO_ICOUNT);
  bytes.set(snapshot.unknownExtra, SNAPSHOT_ENTRY_MIN_BYTES + KNOWN_EXTRA_BYTES);
  bytes.set(id, extraEnd);
  bytes.set(name, extraEnd + id.length);
  return bytes;
}

function tooMany(what: string, value: number, limit: number): ZcowError {
  return new ZcowError("SNAPSHOT_LIMIT", `The ${what} would be ${value}, above the limit of ${limit}`, {
    data: { structure: "snapshot table", value, limit },
  });
}
