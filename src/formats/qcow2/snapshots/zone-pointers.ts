/**
 * Write pointers kept with a snapshot of a zoned image (docs/format.md, section 10).
 *
 * They lie in clusters that the snapshot's own L1 table maps behind the end of the disk, where VM state would lie: whoever copies, counts or
 * deletes the snapshot takes them along. A record in the entry's extra data says where. Applying a snapshot marks its record
 * `pending` in the same write that puts the old mapping in force; the write-pointer table follows, then the mark goes.
 */
import { viewOf, writeU64 } from "../../../base/bytes.js";
import { ZcowError } from "../../../base/errors.js";
import { alignUp, ceilDiv } from "../../../base/integers.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { SECTOR_SIZE } from "../../../base/units.js";
import { crc32c } from "../../../codec/crc32c.js";
import type { Storage } from "../../../storage/storage.js";
import { entryHigh, entryLow, l2Offset } from "../entries.js";
import { encodeFileName } from "../file-name.js";
import type { Qcow2Geometry } from "../geometry.js";
import type { Qcow2Header } from "../header.js";
import { SNAPSHOT_ENTRY_MIN_BYTES, TABLE_ENTRY_BYTES } from "../limits.js";
import type { ImageAtRest } from "../rewrite/image-at-rest.js";
import { tableOf } from "../rewrite/table-references.js";
import { encodeWritePointer, writePointerTableBytes } from "../write-pointer-table.js";
import type { ZonedExtension } from "../zoned-extension.js";
import { decodePointers } from "../zones/stored-pointers.js";
import type { Snapshot } from "./snapshot.js";
import { snapshotL1 } from "./snapshot-lookup.js";
import { KNOWN_EXTRA_BYTES } from "./snapshot-table.js";

/** "zwps". */
const MAGIC = 0x7a77_7073;
const RECORD = { magic: 0, flags: 4, guestOffset: 8, length: 16, zones: 24, checksum: 28 } as const;
const RECORD_BYTES = 32;
const PENDING = 1;
const ALL_ALLOCATED = 0xffff_ffff;

interface PointerRecord {
  readonly pending: boolean;
  /** Behind the end of the disk, bytes. */
  readonly guestOffset: number;
  readonly zones: number;
  readonly checksum: number;
}

function decodeRecord({ unknownExtra }: Snapshot): PointerRecord | undefined {
  if (unknownExtra.length < RECORD_BYTES) return undefined;
  const view = viewOf(unknownExtra);
  if (view.getUint32(RECORD.magic) !== MAGIC) return undefined;
  return {
    pending: (view.getUint32(RECORD.flags) & PENDING) !== 0,
    guestOffset: Number(view.getBigUint64(RECORD.guestOffset)),
    zones: view.getUint32(RECORD.zones),
    checksum: view.getUint32(RECORD.checksum),
  };
}

/** Pointers are kept in the form of the current layout, whatever the image has. */
function shapeOf(zoned: ZonedExtension): ZonedExtension {
  return { ...zoned, layout: "current", tableByteOrder: "big" };
}

/** What a snapshot of a zoned image has more than one of a plain image. */
export interface KeptPointers {
  /** The L1 table of the snapshot, longer by the tables that map the pointers. */
  readonly l1: Uint8Array;
  readonly unknownExtra: Uint8Array;
}

/** Puts the write pointers of the image behind the disk in a copy of `l1`. Throws the `ZONED_*` codes of a damaged table. */
export async function keepPointers(image: ImageAtRest, zoned: ZonedExtension, l1: Uint8Array): Promise<KeptPointers> {
  const { geometry, header, storage } = image;
  if (zoned.tableOffset === undefined) {
    throw new ZcowError(
      "NOT_SUPPORTED",
      `${storage.name} stores no write pointers that a snapshot could keep; convert it to zone layout 'current' first`,
      { data: { path: storage.name } },
    );
  }
  const stored = await image.read(zoned.tableOffset, writePointerTableBytes(zoned.zoneCount));
  const pointers = decodePointers(stored, zoned, header.size, storage.name);
  const bytes = new Uint8Array(stored.length);
  const view = viewOf(bytes);
  for (const [zone, pointer] of pointers.entries())
    encodeWritePointer(view, zone, pointer, shapeOf(zoned), header.size);
  const first = Math.max(l1.length / TABLE_ENTRY_BYTES, geometry.l1EntriesNeeded);
  const record = new Uint8Array(RECORD_BYTES);
  viewOf(record).setUint32(RECORD.magic, MAGIC);
  writeU64(viewOf(record), RECORD.guestOffset, first * geometry.l2Coverage);
  writeU64(viewOf(record), RECORD.length, bytes.length);
  viewOf(record).setUint32(RECORD.zones, zoned.zoneCount);
  viewOf(record).setUint32(RECORD.checksum, crc32c(bytes, 0, bytes.length));
  return { l1: await mapBehind(image, l1, first, bytes), unknownExtra: record };
}

async function mapBehind(image: ImageAtRest, l1: Uint8Array, first: number, bytes: Uint8Array): Promise<Uint8Array> {
  const { clusterSize, l2Entries, l2EntrySize } = image.geometry;
  const data = await image.place(bytes);
  const clusters = ceilDiv(bytes.length, clusterSize);
  const longer = new Uint8Array((first + ceilDiv(clusters, l2Entries)) * TABLE_ENTRY_BYTES);
  longer.set(l1);
  for (let done = 0; done < clusters; done += l2Entries) {
    const table = new Uint8Array(clusterSize);
    const view = viewOf(table);
    for (let entry = 0; entry < Math.min(l2Entries, clusters - done); entry++) {
      const host = data + (done + entry) * clusterSize;
      view.setUint32(entry * l2EntrySize, entryHigh(host, false));
      view.setUint32(entry * l2EntrySize + 4, entryLow(host, false));
      if (l2EntrySize === 16) view.setUint32(entry * l2EntrySize + 12, ALL_ALLOCATED);
    }
    const place = await image.place(table);
    const at = (first + done / l2Entries) * TABLE_ENTRY_BYTES;
    viewOf(longer).setUint32(at, entryHigh(place, false));
    viewOf(longer).setUint32(at + 4, entryLow(place, false));
  }
  return longer;
}

/**
 * The write pointers that `snapshot` keeps: bytes on the disk, one per zone. Throws `SNAPSHOT_POINTERS` when it has none, or
 * damaged ones.
 */
export async function pointersOfSnapshot(
  storage: Storage,
  header: Qcow2Header,
  zoned: ZonedExtension,
  geometry: Qcow2Geometry,
  snapshot: Snapshot,
): Promise<Float64Array> {
  const refuse = (why: string): never => {
    throw new ZcowError("SNAPSHOT_POINTERS", `Snapshot ${snapshot.id} (${snapshot.name}) of ${storage.name} ${why}`, {
      data: { structure: `snapshot ${snapshot.id}`, path: storage.name },
    });
  };
  const record = decodeRecord(snapshot) ?? refuse("has no write pointers: a program that does not know zones took it");
  if (record.zones !== zoned.zoneCount)
    refuse(`has the write pointers of ${record.zones} zones, not ${zoned.zoneCount}`);
  if (snapshot.diskSize !== undefined && snapshot.diskSize !== BigInt(header.size)) {
    refuse(`is of a disk of ${snapshot.diskSize} bytes, not ${header.size}`);
  }
  const bytes = new Uint8Array(writePointerTableBytes(record.zones));
  const { offset, entries } = snapshotL1(snapshot, header);
  const l1 = await read(storage, offset, entries * TABLE_ENTRY_BYTES);
  for (let done = 0; done < bytes.length; done += geometry.clusterSize) {
    const at = record.guestOffset + done;
    const index = Math.floor(at / geometry.l2Coverage);
    const table = index < entries ? tableOf(viewOf(l1), index, geometry, storage.size()) : 0;
    if (table === 0 || at % geometry.clusterSize !== 0) refuse("has lost its write pointers");
    const entry = await read(
      storage,
      table + ((at - index * geometry.l2Coverage) / geometry.clusterSize) * geometry.l2EntrySize,
      8,
    );
    const host = l2Offset(viewOf(entry).getUint32(0), viewOf(entry).getUint32(4));
    if (host === 0 || host >= storage.size()) refuse("has lost its write pointers");
    bytes.set(await read(storage, host, Math.min(geometry.clusterSize, bytes.length - done)), done);
  }
  if (crc32c(bytes, 0, bytes.length) !== record.checksum) refuse("has damaged write pointers: their checksum is wrong");
  return decodePointers(bytes, shapeOf(zoned), header.size, storage.name);
}

async function read(storage: Storage, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  const wait = length === 0 ? undefined : storage.read(offset, bytes);
  if (isPromise(wait)) await wait;
  return bytes;
}

/** The snapshot marked as applied: its pointers count, the write-pointer table has not got them yet. */
export function withPending(snapshot: Snapshot): Snapshot {
  const unknownExtra = snapshot.unknownExtra.slice();
  viewOf(unknownExtra).setUint32(RECORD.flags, PENDING);
  return { ...snapshot, unknownExtra };
}

/** The snapshot whose pointers wait to be written, if there is one. */
export function pendingSnapshot(snapshots: readonly Snapshot[]): Snapshot | undefined {
  return snapshots.find((snapshot) => decodeRecord(snapshot)?.pending === true);
}

/** Takes the mark away, durably; the write-pointer table is durable before. One write of the sector that holds it. */
export async function clearPending(
  storage: Storage,
  header: Qcow2Header,
  snapshots: readonly Snapshot[],
  pending: Snapshot,
  barrier: () => unknown,
): Promise<void> {
  let entry = 0;
  for (const snapshot of snapshots) {
    entry = alignUp(entry, 8);
    if (snapshot === pending) break;
    const texts = encodeFileName(snapshot.id).length + encodeFileName(snapshot.name).length;
    entry += SNAPSHOT_ENTRY_MIN_BYTES + snapshot.extraLength + texts;
  }
  const at = header.snapshotsOffset + entry + SNAPSHOT_ENTRY_MIN_BYTES + KNOWN_EXTRA_BYTES + RECORD.flags;
  const unit = Math.max(SECTOR_SIZE, storage.capabilities.alignment);
  const start = at - (at % unit);
  const sector = await read(storage, start, unit);
  viewOf(sector).setUint32(at - start, 0);
  const written = storage.write(start, sector);
  if (isPromise(written)) await written;
  await barrier();
}

/**
 * Brings the pointers of a snapshot that was applied into the write-pointer table of an image that nobody uses. Nothing happens when
 * they are there already, as nearly always. Throws as `pointersOfSnapshot`.
 */
export async function settleApplied(
  storage: Storage,
  header: Qcow2Header,
  geometry: Qcow2Geometry,
  snapshots: readonly Snapshot[],
): Promise<void> {
  const { zoned } = header;
  const pending = pendingSnapshot(snapshots);
  if (zoned?.tableOffset === undefined || pending === undefined) return;
  const pointers = await pointersOfSnapshot(storage, header, zoned, geometry, pending);
  const unit = Math.max(SECTOR_SIZE, storage.capabilities.alignment);
  const table = await read(storage, zoned.tableOffset, alignUp(writePointerTableBytes(zoned.zoneCount), unit));
  for (const [zone, pointer] of pointers.entries())
    encodeWritePointer(viewOf(table), zone, pointer, zoned, header.size);
  const written = storage.write(zoned.tableOffset, table);
  if (isPromise(written)) await written;
  const flushed = storage.flush();
  if (isPromise(flushed)) await flushed;
  await clearPending(storage, header, snapshots, pending, () => storage.flush());
}
