import { ZcowError } from "../base/errors.js";
import { alignDown } from "../base/integers.js";
import { SECTOR_SIZE } from "../base/units.js";
import type { JournalRecord } from "./journal-codec.js";
import type { Storage } from "./storage.js";

/**
 * Puts the records into the image, stage by stage, with a storage flush before each stage and one at the end: the flush that
 * the killed process did not get to. Interrupted, it can be done again from the start.
 *
 * Throws `IMAGE_CORRUPT` before anything is written when a record lies outside the image.
 */
export async function replayJournal(storage: Storage, records: readonly JournalRecord[]): Promise<void> {
  const size = storage.size();
  for (const { offset, bytes } of records) if (offset + bytes.length > size) throw outside(storage, offset, size);
  const stages = [...new Set(records.map(({ stage }) => stage))].sort((a, b) => a - b);
  for (const stage of stages) {
    await storage.flush();
    await putStage(
      storage,
      records.filter((record) => record.stage === stage),
    );
  }
  await storage.flush();
}

/** Whole sectors are written, so that a power cut leaves each entry old or new. Later records of a sector win. */
async function putStage(storage: Storage, records: readonly JournalRecord[]): Promise<void> {
  const unit = Math.max(SECTOR_SIZE, storage.capabilities.alignment);
  const sectors = new Map<number, Uint8Array>();
  for (const { offset, bytes } of records) {
    const end = offset + bytes.length;
    for (let start = alignDown(offset, unit); start < end; start += unit) {
      let sector = sectors.get(start);
      if (sector === undefined) {
        sector = new Uint8Array(Math.min(unit, storage.size() - start));
        await storage.read(start, sector);
        sectors.set(start, sector);
      }
      const from = Math.max(start, offset);
      sector.set(bytes.subarray(from - offset, Math.min(end, start + unit) - offset), from - start);
    }
  }
  for (const [start, sector] of [...sectors].sort(([a], [b]) => a - b)) await storage.write(start, sector);
}

function outside(storage: Storage, offset: number, size: number): ZcowError {
  return new ZcowError(
    "IMAGE_CORRUPT",
    `${storage.name}: its journal has a record at ${offset}, the file has ${size} bytes`,
    {
      data: { structure: "journal", path: storage.name, offset, value: offset, limit: size },
    },
  );
}
