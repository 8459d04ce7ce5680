import { viewOf } from "../../../../base/bytes.js";
import { alignUp } from "../../../../base/integers.js";
import { isPromise } from "../../../../base/maybe-promise.js";
import {
  MAX_HOST_OFFSET,
  MAX_L1_BYTES,
  MAX_SNAPSHOT_EXTRA_BYTES,
  MAX_SNAPSHOT_TABLE_BYTES,
  MAX_SNAPSHOT_TEXT_BYTES,
  MAX_SNAPSHOTS,
  SNAPSHOT_ENTRY_MIN_BYTES,
  TABLE_ENTRY_BYTES,
} from "../../limits.js";
import { switchTables } from "../../rewrite/switch-header.js";
import type { Snapshot } from "../../snapshots/snapshot.js";
import {
  decodeEntry,
  ENTRY_ALIGNMENT,
  KNOWN_EXTRA_BYTES,
  textBytes,
  tooMuchText,
} from "../../snapshots/snapshot-table.js";
import type { CheckSession } from "../check-session.js";
import { markCorrupt } from "../header-patch.js";
import { neededEntries } from "./needed-entries.js";
import { NewClusters } from "./new-clusters.js";
import { writeSnapshots } from "./write-snapshots.js";

/** Extra data that version 3 demands: VM state size and disk size. */
const REQUIRED_EXTRA_BYTES = 16;
const MAX_ENTRY_BYTES = SNAPSHOT_ENTRY_MIN_BYTES + MAX_SNAPSHOT_EXTRA_BYTES + 2 * 0xffff;
const EXTRA_LENGTH_AT = 36;

/**
 * Puts the snapshot table right (qcow2 specification, "Snapshots"): entries that lead to no L1 table are removed, impossible lengths cut,
 * missing extra data added, each with a line of its own. The table with what is left is written anew behind the end of the file, then the
 * header names it: a crash leaves the old table or the new one. Clusters of removed snapshots are freed with the refcounts.
 */
export async function mendSnapshotTable(session: CheckSession): Promise<void> {
  const { snapshotCount, snapshotsOffset } = session.header;
  const isPlaced = snapshotsOffset % session.geometry.clusterSize === 0 && snapshotsOffset <= MAX_HOST_OFFSET;
  if (snapshotCount === 0 && isPlaced) return;
  await new SnapshotMending(session).run();
}

class SnapshotMending {
  readonly #session: CheckSession;
  #changed = false;

  constructor(session: CheckSession) {
    this.#session = session;
  }

  async run(): Promise<void> {
    const session = this.#session;
    const kept = this.#isTableLost() ? this.#loseAll() : await this.#readEntries();
    if (!this.#changed) return;
    session.header = await markCorrupt(session.storage, session.header);
    const fields = await writeSnapshots(session, kept, new NewClusters(session));
    session.header = { ...session.header, ...fields };
    await switchTables(session.storage, session.header);
  }

  #isTableLost(): boolean {
    const { header, geometry, fileLength } = this.#session;
    const { snapshotsOffset } = header;
    return snapshotsOffset === 0 || snapshotsOffset % geometry.clusterSize !== 0 || snapshotsOffset >= fileLength;
  }

  #loseAll(): Snapshot[] {
    const { snapshotCount, snapshotsOffset } = this.#session.header;
    this.#tell(
      Math.max(snapshotCount, 1),
      `Discarding all ${snapshotCount} snapshots: there is no table at snapshots_offset 0x${snapshotsOffset.toString(16)}`,
    );
    return [];
  }

  async #readEntries(): Promise<Snapshot[]> {
    const { header, fileLength } = this.#session;
    const count = Math.min(header.snapshotCount, MAX_SNAPSHOTS);
    if (count < header.snapshotCount) this.#overhang(header.snapshotCount - count, "");
    const snapshots: Snapshot[] = [];
    const window = new Uint8Array(2 * MAX_ENTRY_BYTES);
    let start = 0;
    let loaded = 0;
    let length = 0;
    let text = 0;
    for (let index = 0; index < count; index++) {
      const at = alignUp(length, ENTRY_ALIGNMENT);
      if (header.snapshotsOffset + at >= fileLength) {
        this.#overhang(count - index, "");
        break;
      }
      if (loaded - at < MAX_ENTRY_BYTES) {
        const wait = this.#session.read(header.snapshotsOffset + at, window, "the snapshot table");
        if (isPromise(wait)) await wait;
        start = at;
        loaded = at + window.length;
      }
      const entry = this.#entryBytes(window.subarray(at - start), index);
      length = at + entry.length;
      if (length > MAX_SNAPSHOT_TABLE_BYTES) {
        this.#overhang(count - index, " (snapshot table is too big)");
        break;
      }
      text += textBytes(entry.bytes);
      // Their data may be all right: nothing is discarded for a name.
      if (text > MAX_SNAPSHOT_TEXT_BYTES) throw tooMuchText(index);
      snapshots.push(decodeEntry(entry.bytes));
    }
    return this.#mendEntries(snapshots);
  }

  /** The bytes of the entry at the start of `buffer`, extra data cut to what is allowed, and its length in the table. */
  #entryBytes(buffer: Uint8Array, index: number): { readonly bytes: Uint8Array; readonly length: number } {
    const view = viewOf(buffer);
    const extra = view.getUint32(EXTRA_LENGTH_AT);
    const texts = view.getUint16(12) + view.getUint16(14);
    if (extra <= MAX_SNAPSHOT_EXTRA_BYTES) {
      const length = SNAPSHOT_ENTRY_MIN_BYTES + extra + texts;
      return { bytes: buffer.subarray(0, length), length };
    }
    this.#tell(
      1,
      `Discarding too much extra metadata in snapshot table entry ${index} (${extra} > ${MAX_SNAPSHOT_EXTRA_BYTES})`,
    );
    // The length is what is wrong: nothing writes that much. All known programs write one of two lengths.
    const likely = looksLikeText(buffer, KNOWN_EXTRA_BYTES) ? KNOWN_EXTRA_BYTES : REQUIRED_EXTRA_BYTES;
    const length = SNAPSHOT_ENTRY_MIN_BYTES + likely + texts;
    const bytes = buffer.slice(0, length);
    viewOf(bytes).setUint32(EXTRA_LENGTH_AT, likely);
    return { bytes, length };
  }

  #mendEntries(snapshots: readonly Snapshot[]): Snapshot[] {
    const kept: Snapshot[] = [];
    for (const [index, snapshot] of snapshots.entries()) {
      const mended = this.#mendRoot(index, snapshot);
      if (mended === undefined) continue;
      if (this.#session.geometry.version === 3 && snapshot.extraLength < REQUIRED_EXTRA_BYTES) {
        this.#tell(1, `Repairing snapshot table entry ${index} is incomplete`);
      }
      kept.push(mended);
    }
    return kept;
  }

  /** The snapshot with an L1 table that can be one; undefined when nothing can be found under it. */
  #mendRoot(index: number, snapshot: Snapshot): Snapshot | undefined {
    const { geometry, fileLength } = this.#session;
    const { l1Offset, l1Entries, id, name } = snapshot;
    const isEmpty = l1Entries === 0 && id !== "";
    const isPlaced = l1Offset > 0n && l1Offset % BigInt(geometry.clusterSize) === 0n && l1Offset < BigInt(fileLength);
    if (!isEmpty && !isPlaced) {
      this.#tell(
        1,
        `Discarding snapshot table entry ${index}, snapshot '${id}' (${name}): no L1 table at l1_offset=0x${l1Offset.toString(16)}`,
      );
      return undefined;
    }
    const needed = neededEntries(snapshot, geometry);
    const room = isEmpty
      ? MAX_L1_BYTES
      : Math.min(MAX_L1_BYTES, alignUp(fileLength, geometry.clusterSize) - Number(l1Offset));
    // More than it needs is harmless where it can be; it cannot reach past the end of the file.
    const isTooLarge = l1Entries * TABLE_ENTRY_BYTES > (l1Entries > needed ? room : MAX_L1_BYTES);
    if (!isTooLarge) return snapshot;
    const fits = needed * TABLE_ENTRY_BYTES <= Math.min(MAX_L1_BYTES, fileLength - Number(l1Offset));
    this.#tell(
      1,
      `${fits ? "Repairing" : "Discarding"} snapshot table entry ${index}, snapshot '${id}' (${name}): ` +
        `l1_size=0x${l1Entries.toString(16)} is too large${fits ? `, now 0x${needed.toString(16)}` : ""}`,
    );
    return fits ? { ...snapshot, l1Entries: needed } : undefined;
  }

  #overhang(count: number, why: string): void {
    this.#tell(count, `Discarding ${count} overhanging snapshots${why}`);
  }

  #tell(count: number, message: string): void {
    this.#changed = true;
    const { tally, header } = this.#session;
    tally.corruptionsFixed += count;
    this.#session.report(
      {
        kind: "snapshot-table",
        severity: "note",
        repaired: true,
        structure: "snapshot table",
        offset: header.snapshotsOffset,
      },
      () => message,
    );
  }
}

/** An id and a name follow extra data of `extraLength` bytes: nothing in them is a control character. */
function looksLikeText(entry: Uint8Array, extraLength: number): boolean {
  const view = viewOf(entry);
  const start = SNAPSHOT_ENTRY_MIN_BYTES + extraLength;
  const texts = entry.subarray(start, start + view.getUint16(12) + view.getUint16(14));
  return texts.every((byte) => byte >= 0x20);
}
