import { viewOf } from "../../../base/bytes.js";
import type { ZcowError } from "../../../base/errors.js";
import { isPromise } from "../../../base/maybe-promise.js";
import {
  decodeWritePointerTable,
  encodeWritePointer,
  writableEnd,
  writePointerTableBytes,
} from "../write-pointer-table.js";
import type { ZonedExtension } from "../zoned-extension.js";
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
  const bad: { readonly zone: number; readonly fault: ZcowError }[] = [];
  decodeWritePointerTable(bytes, zoned, size, (zone, fault) => bad.push({ zone, fault }));
  if (bad.length === 0) return;
  const mend = session.fix === "all" && isTableAlone(session, zoned);
  const reconstruction = new ZoneReconstruction(session);
  for (const { zone, fault } of bad) {
    const pointer = mend ? await mendEntry(session, zoned, reconstruction, bytes, zone) : undefined;
    reportEntry(session, zoned, zone, fault, pointer);
  }
  if (mend) await writeTable(session, zoned.tableOffset, bytes);
}

async function mendEntry(
  session: CheckSession,
  zoned: ZonedExtension,
  reconstruction: ZoneReconstruction,
  bytes: Uint8Array,
  zone: number,
): Promise<number> {
  const { size } = session.header;
  const start = zone * zoned.zoneSize;
  const end = writableEnd(zoned, zone, size);
  const pointer = zone < zoned.conventionalZones ? start : await reconstruction.endOfData(start, end);
  encodeWritePointer(viewOf(bytes), zone, pointer, zoned, size);
  session.tally.corruptionsFixed++;
  return pointer;
}

function reportEntry(
  session: CheckSession,
  zoned: ZonedExtension,
  zone: number,
  fault: ZcowError,
  pointer: number | undefined,
): void {
  const repaired = pointer !== undefined;
  session.report(
    {
      kind: "zone",
      severity: repaired ? "note" : "corruption",
      repaired,
      structure: `zone ${zone}`,
      offset: (zoned.tableOffset ?? 0) + zone * 8,
    },
    () =>
      `${repaired ? "Repairing" : "ERROR"} zone ${zone}: ${fault.message}${repaired ? `; now 0x${pointer.toString(16)}` : ""}`,
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
