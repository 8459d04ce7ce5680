import { viewOf } from "../../../base/bytes.js";
import { ZcowError } from "../../../base/errors.js";
import { isPromise } from "../../../base/maybe-promise.js";
import {
  encodeWritePointer,
  isWritePointerSound,
  writableEnd,
  writePointerFault,
  writePointerTableBytes,
} from "../write-pointer-table.js";
import type { ZonedExtension } from "../zoned-extension.js";
import { WRITE_POINTER_BYTES } from "../zoned-layouts.js";
import type { CheckSession } from "./check-session.js";
import { countRegion } from "./regions.js";
import { ZoneReconstruction } from "./zone-reconstruction.js";

/** The write-pointer table of a zoned image (docs/format.md, "Write-pointer table"). */

/** Counts the clusters of the table, in every layout that has one; stock tools do not know them. */
export function countZoneTable(session: CheckSession): void {
  const { zoned } = session.header;
  if (zoned?.tableOffset === undefined) return;
  countRegion(session, zoned.tableOffset, writePointerTableBytes(zoned.zoneCount));
}

/** Checks every entry of the table. With `session.fix` "all", bad ones get the end of the data that the zone holds. */
export async function checkZoneTable(session: CheckSession): Promise<void> {
  const { zoned, size } = session.header;
  if (zoned?.tableOffset === undefined || zoned.tableOffset >= session.fileLength) return;
  const bytes = new Uint8Array(writePointerTableBytes(zoned.zoneCount));
  await session.read(zoned.tableOffset, bytes, "the write-pointer table");
  const view = viewOf(bytes);
  const bad: number[] = [];
  for (let zone = 0; zone < zoned.zoneCount; zone++) {
    if (!isWritePointerSound(view, zone, zoned, size)) bad.push(zone);
  }
  if (bad.length === 0) return;
  const mend = session.fix === "all" && isTableAlone(session, zoned);
  const reconstruction = new ZoneReconstruction(session);
  for (const zone of bad) {
    const pointer = mend ? await reconstructed(session, zoned, reconstruction, zone) : undefined;
    reportEntry(session, zoned, view, zone, pointer);
    if (pointer !== undefined) encodeWritePointer(view, zone, pointer, zoned, size);
  }
  if (mend) await writeTable(session, zoned.tableOffset, bytes);
}

async function reconstructed(
  session: CheckSession,
  zoned: ZonedExtension,
  reconstruction: ZoneReconstruction,
  zone: number,
): Promise<number> {
  const start = zone * zoned.zoneSize;
  if (zone < zoned.conventionalZones) return start;
  return reconstruction.endOfData(start, writableEnd(zoned, zone, session.header.size));
}

/** The words are made only for entries that are told or kept: a table may have 2^20 bad ones. */
function reportEntry(
  session: CheckSession,
  zoned: ZonedExtension,
  table: DataView,
  zone: number,
  pointer: number | undefined,
): void {
  const repaired = pointer !== undefined;
  if (repaired) session.tally.corruptionsFixed++;
  else session.zoneFaults++;
  session.report(
    {
      kind: "zone",
      severity: repaired ? "note" : "corruption",
      repaired,
      structure: `zone ${zone}`,
      offset: (zoned.tableOffset ?? 0) + zone * WRITE_POINTER_BYTES,
    },
    (fault) =>
      `${repaired ? "Repairing" : "ERROR"} zone ${zone}: ${fault?.message}${repaired ? `; now 0x${pointer.toString(16)}` : ""}`,
    1,
    () => writePointerFault(table, zone, zoned, session.header.size),
  );
}

/** Finds out, once all references are counted, whether the table shares its clusters; reports it if so. */
export function checkTableAlone(session: CheckSession): void {
  const { zoned } = session.header;
  if (zoned?.tableOffset === undefined || isTableAlone(session, zoned)) return;
  session.zoneTableShared = true;
  const offset = zoned.tableOffset;
  reportZonedFault(
    session,
    new ZcowError(
      "ZONED_TABLE_OVERLAP",
      `Zoned extension: zonedmeta_offset ${offset} puts the write-pointer table in clusters that other metadata or data use too`,
      { data: { structure: "zoned extension", field: "zonedmeta_offset", value: offset } },
    ),
    undefined,
  );
}

/** One fault of the zones that is not of a single entry. `obstacle`: why no repair can take it away, if so. */
export function reportZonedFault(session: CheckSession, fault: ZcowError, obstacle: string | undefined): void {
  session.zoneFaults++;
  const { structure = "zoned extension" } = fault.data;
  const why = obstacle === undefined ? "" : `; not repaired: ${obstacle}`;
  session.report(
    { kind: "zone", severity: "corruption", structure },
    () => `ERROR: ${fault.message}${why}`,
    1,
    () => fault,
  );
}

/** The table is rewritten only in clusters that hold nothing else. */
function isTableAlone(session: CheckSession, zoned: ZonedExtension): boolean {
  const { clusterSize } = session.geometry;
  const offset = zoned.tableOffset ?? 0;
  const last = Math.floor((offset + writePointerTableBytes(zoned.zoneCount) - 1) / clusterSize);
  for (let cluster = Math.floor(offset / clusterSize); cluster <= last; cluster++) {
    if (session.counts.get(cluster) !== 1) return false;
  }
  return true;
}

async function writeTable(session: CheckSession, offset: number, bytes: Uint8Array): Promise<void> {
  const before = session.storage.flush();
  if (isPromise(before)) await before;
  const written = session.storage.write(offset, bytes);
  if (isPromise(written)) await written;
  const after = session.storage.flush();
  if (isPromise(after)) await after;
}
