import { viewOf } from "../../base/bytes.js";
import { ZcowError } from "../../base/errors.js";
import type { JournalRecord } from "../../storage/journal-codec.js";
import type { Storage } from "../../storage/storage.js";
import type { Qcow2Header } from "./header.js";
import { decodeTail, JOURNAL_STAGE } from "./journal-stages.js";
import { decodeWritePointer, isWritePointerSound, writePointerTableBytes } from "./write-pointer-table.js";
import { WRITE_POINTER_BYTES } from "./zoned-layouts.js";

/**
 * Zeroes what a killed process left of the former life of clusters that it had written the start of (late-padding.ts): of each cluster in the
 * journal, what is at or above the write pointer that its zone has by the journal. Nothing of it was acknowledged, whatever became of the
 * cluster later, so this may be done again. Not durable yet. Returns the records of tables.
 *
 * Throws `IMAGE_CORRUPT` before anything is written when a record lies outside the image.
 */
export async function resumeTails(
  storage: Storage,
  header: Qcow2Header,
  records: readonly JournalRecord[],
): Promise<readonly JournalRecord[]> {
  const tails = records.filter(({ stage }) => stage === JOURNAL_STAGE.tails);
  if (tails.length === 0) return records;
  const pointerOf = await pointersAfter(storage, header, records);
  const clusterSize = 2 ** header.clusterBits;
  const places = tails.map(({ offset, bytes }) => ({ host: offset, guest: decodeTail(bytes) }));
  for (const { host, guest } of places) {
    const isSound = host > 0 && host % clusterSize === 0 && guest !== undefined && guest % clusterSize === 0;
    if (!isSound || guest >= header.size || host + clusterSize > Number.MAX_SAFE_INTEGER) {
      throw corrupt(storage, host, guest);
    }
  }
  for (const { host, guest = 0 } of places) {
    const pointer = pointerOf(guest);
    if (pointer === undefined) continue;
    const written = Math.max(0, pointer - guest);
    // Past the end of the file nothing is stored.
    const [from, end] = [host + written, Math.min(host + clusterSize, storage.size())];
    if (end > from) await storage.writeZeroes(from, end - from);
  }
  return records.filter(({ stage }) => stage !== JOURNAL_STAGE.tails);
}

/** The write pointer of the zone of a guest offset when all records are in the file; undefined when its entry is bad. */
async function pointersAfter(
  storage: Storage,
  { zoned, size }: Qcow2Header,
  records: readonly JournalRecord[],
): Promise<(guest: number) => number | undefined> {
  const offset = zoned?.tableOffset;
  if (zoned === undefined || offset === undefined) return () => undefined;
  const table = new Uint8Array(writePointerTableBytes(zoned.zoneCount));
  await storage.read(offset, table);
  for (const record of records) {
    const at = record.offset - offset;
    if (record.stage !== JOURNAL_STAGE.writePointers || record.bytes.length !== WRITE_POINTER_BYTES) continue;
    if (at >= 0 && at + WRITE_POINTER_BYTES <= table.length) table.set(record.bytes, at);
  }
  const view = viewOf(table);
  return (guest) => {
    const zone = Math.floor(guest / zoned.zoneSize);
    const isSequential = zone >= zoned.conventionalZones && zone < zoned.zoneCount;
    if (!isSequential || !isWritePointerSound(view, zone, zoned, size)) return undefined;
    return decodeWritePointer(view, zone, zoned, size);
  };
}

function corrupt(storage: Storage, host: number, guest: number | undefined): ZcowError {
  return new ZcowError(
    "IMAGE_CORRUPT",
    `${storage.name}: its journal says that the cluster at ${host} is that of guest offset ${guest}, which cannot be`,
    { data: { structure: "journal", path: storage.name, offset: host, ...(guest !== undefined && { value: guest }) } },
  );
}
