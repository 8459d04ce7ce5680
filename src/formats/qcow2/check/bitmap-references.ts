import { viewOf } from "../../../base/bytes.js";
import { isZcowError, ZcowError } from "../../../base/errors.js";
import { decodeDirectory } from "../bitmaps/bitmap-directory.js";
import type { BitmapDirectory } from "../header.js";
import { MAX_BITMAP_DIRECTORY_BYTES, MAX_BITMAPS } from "../limits.js";
import { MAX_BITMAP_TABLE_ENTRIES, TABLE_BATCH_BYTES } from "./check-limits.js";
import { type CheckSession, CheckStopped } from "./check-session.js";
import { countRegion } from "./regions.js";

/** Bitmap structures (qcow2 specification, "Bitmaps"). Only counted while their autoclear bit says they are consistent. */

const TABLE_RESERVED = 0xff00_0000_0000_01fen;
const TABLE_OFFSET = 0x00ff_ffff_ffff_fe00n;
const ALL_ONES = 1n;

interface BitmapTable {
  readonly offset: number;
  readonly entries: number;
}

/** Counts the bitmap directory, the bitmap tables and the clusters of bitmap data. */
export async function countBitmaps(session: CheckSession): Promise<void> {
  const directory = findDirectory(session);
  if (directory === undefined || directory.count === 0) return;
  countRegion(session, directory.offset, directory.length);
  let entries = 0;
  for (const table of await readDirectory(session, directory)) {
    entries += table.entries;
    if (entries > MAX_BITMAP_TABLE_ENTRIES) throw tooManyEntries();
    countRegion(session, table.offset, table.entries * 8);
    await countTable(session, table);
  }
}

function findDirectory(session: CheckSession): BitmapDirectory | undefined {
  const directory = session.header.bitmaps;
  if (directory === undefined) return undefined;
  const { count, length, offset } = directory;
  if (count > MAX_BITMAPS || length > MAX_BITMAP_DIRECTORY_BYTES) stop(session, "the bitmap directory is too large");
  if (count > 0 && offset + length > session.fileLength) {
    stop(session, "the bitmap directory reaches past the end of the file");
  }
  return directory;
}

async function readDirectory(session: CheckSession, directory: BitmapDirectory): Promise<BitmapTable[]> {
  const bytes = new Uint8Array(directory.length);
  await session.read(directory.offset, bytes, "the bitmap directory");
  try {
    const entries = decodeDirectory(bytes, directory.count, session.geometry.clusterSize);
    return entries.map(({ tableOffset, tableEntries }) => ({ offset: tableOffset, entries: tableEntries }));
  } catch (error) {
    if (!isZcowError(error)) throw error;
    return stop(session, error.message);
  }
}

async function countTable(session: CheckSession, table: BitmapTable): Promise<void> {
  const total = table.entries * 8;
  if (table.offset >= session.fileLength) return;
  const buffer = new Uint8Array(Math.min(total, TABLE_BATCH_BYTES));
  const view = viewOf(buffer);
  for (let done = 0; done < total; done += buffer.length) {
    const length = Math.min(buffer.length, total - done);
    await session.read(table.offset + done, buffer.subarray(0, length), "a bitmap table");
    for (let at = 0; at < length; at += 8) countEntry(session, table, view, at);
  }
}

function countEntry(session: CheckSession, table: BitmapTable, view: DataView, at: number): void {
  if (view.getUint32(at) === 0 && view.getUint32(at + 4) <= 1) return;
  const entry = view.getBigUint64(at);
  const offset = entry & TABLE_OFFSET;
  const misaligned = Number(entry & BigInt(session.geometry.clusterSize - 1)) !== 0;
  if ((entry & TABLE_RESERVED) !== 0n || (offset !== 0n && ((entry & ALL_ONES) !== 0n || misaligned))) {
    session.report(
      { kind: "bitmap", severity: "corruption", structure: "bitmap table", offset: table.offset },
      () => `ERROR bitmap table entry=${entry.toString(16)}: reserved bits set or not cluster aligned`,
    );
    session.unreadReferences = "an entry of a bitmap table is damaged";
    return;
  }
  countRegion(session, Number(offset), session.geometry.clusterSize);
}

function stop(session: CheckSession, why: string): never {
  session.report(
    { kind: "bitmap", severity: "corruption", structure: "bitmap directory" },
    () => `ERROR bitmaps: ${why}`,
  );
  throw new CheckStopped("Invalid argument");
}

function tooManyEntries(): ZcowError {
  return new ZcowError("CHECK_LIMIT", `The bitmap tables have more than ${MAX_BITMAP_TABLE_ENTRIES} entries together`, {
    data: { structure: "bitmap directory", limit: MAX_BITMAP_TABLE_ENTRIES },
  });
}
