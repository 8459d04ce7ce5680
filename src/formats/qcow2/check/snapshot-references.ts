import { viewOf } from "../../../base/bytes.js";
import { ZcowError } from "../../../base/errors.js";
import { alignUp } from "../../../base/integers.js";
import {
  MAX_L1_BYTES,
  MAX_SNAPSHOT_EXTRA_BYTES,
  MAX_SNAPSHOT_TABLE_BYTES,
  MAX_SNAPSHOT_TEXT_BYTES,
  MAX_SNAPSHOTS,
  SNAPSHOT_ENTRY_MIN_BYTES,
} from "../limits.js";
import { textBytes, tooMuchText } from "../snapshots/snapshot-table.js";
import { MAX_SNAPSHOT_L1_ENTRIES } from "./check-limits.js";
import { type CheckSession, CheckStopped } from "./check-session.js";
import type { MappingWalk } from "./l1-references.js";
import { countRegion } from "./regions.js";

/** What a check needs of a snapshot table entry (qcow2 specification, "Snapshots"). */
export interface SnapshotRoot {
  readonly id: string;
  readonly name: string;
  readonly l1Offset: bigint;
  /** Entries. */
  readonly l1Length: number;
}

/** Extra data of a version 3 entry: VM state size and disk size. */
const REQUIRED_EXTRA_BYTES = 16;
/** The longest entry: fixed part, extra data, and two names of 16-bit length, padded. */
const MAX_ENTRY_BYTES = SNAPSHOT_ENTRY_MIN_BYTES + MAX_SNAPSHOT_EXTRA_BYTES + 2 * 65_535 + 8;

const TEXT = new TextDecoder();

/** Reads the snapshot table, in bounded pieces. A table that cannot be read ends the check, as it does for the stock tool. */
export async function readSnapshotRoots(session: CheckSession): Promise<SnapshotRoot[]> {
  const { header } = session;
  const roots: SnapshotRoot[] = [];
  refuseTablePlace(session);
  noteLostTable(session);
  let offset = header.snapshotsOffset;
  const window = new Uint8Array(header.snapshotCount === 0 ? 0 : 2 * MAX_ENTRY_BYTES);
  let start = 0;
  let loaded = 0;
  let text = 0;
  for (let index = 0; index < header.snapshotCount; index++) {
    offset = alignUp(offset, 8);
    if (loaded - offset < MAX_ENTRY_BYTES) {
      await session.read(offset, window, "the snapshot table");
      start = offset;
      loaded = offset + window.length;
    }
    const entry = window.subarray(offset - start);
    const length = entryLength(session, entry, index);
    text += textBytes(entry);
    if (text > MAX_SNAPSHOT_TEXT_BYTES) throw tooMuchText(index);
    roots.push(decodeRoot(session, entry, index));
    offset += length;
    if (offset - header.snapshotsOffset > MAX_SNAPSHOT_TABLE_BYTES) stop(session, "Snapshot table is too big");
  }
  session.snapshotRoots = roots;
  session.snapshotTableLength = offset - header.snapshotsOffset;
  return roots;
}

/** Counts the L1 tables of all snapshots, then the snapshot table itself. */
export async function countSnapshots(
  session: CheckSession,
  walk: MappingWalk,
  roots: readonly SnapshotRoot[],
): Promise<void> {
  if (session.hasDataFile && roots.length > 0) {
    corrupt(session, `ERROR ${roots.length} snapshots in image with data file`);
  }
  let entries = 0;
  for (const root of roots) {
    if (!isRootUsable(session, root)) continue;
    entries += root.l1Length;
    if (entries > MAX_SNAPSHOT_L1_ENTRIES) throw tooManyEntries();
    await walk.countL1({ offset: Number(root.l1Offset), length: root.l1Length, active: false });
  }
  countRegion(session, session.header.snapshotsOffset, session.snapshotTableLength);
}

function isRootUsable(session: CheckSession, root: SnapshotRoot): boolean {
  const what = `ERROR snapshot ${root.id} (${root.name})`;
  const isAligned = root.l1Offset % BigInt(session.geometry.clusterSize) === 0n;
  if (!isAligned || (root.l1Offset === 0n && root.l1Length > 0)) {
    const fault = isAligned ? "L1 table cannot be in the place of the header" : "L1 table is not cluster aligned";
    corrupt(session, `${what} l1_offset=0x${root.l1Offset.toString(16)}: ${fault}; snapshot table entry corrupted`);
    session.unreadReferences = "the L1 table of a snapshot cannot be found";
    return false;
  }
  if (root.l1Length > MAX_L1_BYTES / 8) {
    corrupt(
      session,
      `${what} l1_size=0x${root.l1Length.toString(16)}: L1 table is too large; snapshot table entry corrupted`,
    );
    session.unreadReferences = "the L1 table of a snapshot is too large";
    return false;
  }
  if (root.l1Length > 0 && root.l1Offset >= BigInt(session.fileLength)) {
    // Nothing is there to be read; the region is reported and counted as past the end.
    countRegion(session, Number(root.l1Offset), root.l1Length * 8, () => root.l1Offset.toString(16));
    session.unreadReferences = "the L1 table of a snapshot lies outside the file";
    return false;
  }
  return true;
}

function entryLength(session: CheckSession, entry: Uint8Array, index: number): number {
  const view = viewOf(entry);
  const extra = view.getUint32(36);
  if (extra > MAX_SNAPSHOT_EXTRA_BYTES) stop(session, `Too much extra metadata in snapshot table entry ${index}`);
  return SNAPSHOT_ENTRY_MIN_BYTES + extra + view.getUint16(12) + view.getUint16(14);
}

function decodeRoot(session: CheckSession, entry: Uint8Array, index: number): SnapshotRoot {
  const view = viewOf(entry);
  const extra = view.getUint32(36);
  const idAt = SNAPSHOT_ENTRY_MIN_BYTES + extra;
  const nameAt = idAt + view.getUint16(12);
  if (session.geometry.version === 3 && extra < REQUIRED_EXTRA_BYTES) {
    corrupt(session, `ERROR snapshot table entry ${index} is incomplete`);
  }
  return {
    id: TEXT.decode(entry.subarray(idAt, nameAt)),
    name: TEXT.decode(entry.subarray(nameAt, nameAt + view.getUint16(14))),
    l1Offset: view.getBigUint64(0),
    l1Length: view.getUint32(8),
  };
}

function refuseTablePlace(session: CheckSession): void {
  const { header, geometry } = session;
  if (header.snapshotCount > MAX_SNAPSHOTS) {
    session.report(
      { kind: "snapshot-table", severity: "error", structure: "snapshot table" },
      () => "ERROR snapshot table too large",
    );
    throw new CheckStopped("File too large");
  }
  const isInHeader = header.snapshotsOffset === 0 && header.snapshotCount > 0;
  if (isInHeader || header.snapshotsOffset % geometry.clusterSize !== 0) {
    session.report(
      { kind: "snapshot-table", severity: "error", structure: "snapshot table", offset: header.snapshotsOffset },
      () => "ERROR snapshot table offset invalid",
    );
    throw new CheckStopped("Invalid argument");
  }
}

/** The stock tool reads zeros there, which it takes for snapshots without data. */
function noteLostTable(session: CheckSession): void {
  const { snapshotCount, snapshotsOffset } = session.header;
  const isLost = snapshotCount > 0 && snapshotsOffset >= session.fileLength;
  if (isLost) session.unreadReferences = "the snapshot table is not where the header says";
}

function corrupt(session: CheckSession, message: string): void {
  session.report(
    {
      kind: "snapshot-table",
      severity: "corruption",
      structure: "snapshot table",
      offset: session.header.snapshotsOffset,
    },
    () => message,
  );
}

function stop(session: CheckSession, why: string): never {
  session.report(
    { kind: "snapshot-table", severity: "error", structure: "snapshot table", offset: session.header.snapshotsOffset },
    () => `ERROR failed to read the snapshot table: ${why}`,
  );
  throw new CheckStopped("File too large");
}

function tooManyEntries(): ZcowError {
  return new ZcowError(
    "CHECK_LIMIT",
    `The L1 tables of the snapshots have more than ${MAX_SNAPSHOT_L1_ENTRIES} entries together`,
    { data: { structure: "snapshot table", limit: MAX_SNAPSHOT_L1_ENTRIES } },
  );
}
