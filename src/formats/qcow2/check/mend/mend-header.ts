import { isZcowError, type ZcowError } from "../../../../base/errors.js";
import type { Storage } from "../../../../storage/storage.js";
import type { UnresolvedHeader } from "../../header.js";
import { readUnresolvedHeader } from "../../header-read.js";
import { MAX_HOST_OFFSET } from "../../limits.js";
import type { FindingLog } from "../check-session.js";
import { dropBitmaps, dropRefcountTable } from "../header-patch.js";

/** Faults of the header that can be taken away: one of the refcount table, one of the bitmaps. */
const MAX_REMEDIES = 2;

/**
 * Takes away what keeps a header from being read and can be spared: a refcount table in no possible place is made anew from the mapping,
 * bitmaps whose directory cannot be found are lost. Each is one write of the first sector at most, and only when the image could not be
 * opened before.
 * Returns how much was mended. Throws the `QCOW2_*` codes for every other fault.
 */
export async function mendHeader(storage: Storage, log: FindingLog): Promise<number> {
  let mended = 0;
  for (; mended < MAX_REMEDIES; mended++) {
    try {
      const { header } = await readUnresolvedHeader(storage, { mode: "check", writable: true });
      if (!hasWildTable(header)) return mended;
      note(log, "refcount table", `refcount_table_offset ${header.refcountTableOffset} is above 2^53`);
      return mended + 1;
    } catch (fault) {
      if (!isZcowError(fault)) throw fault;
      await takeAway(storage, fault, log);
    }
  }
  return mended;
}

/**
 * The header as if it had no refcount table, where the table lies past all files. Such an image can be read, and one without a table
 * cannot: so the field stays as it is until there is a new table.
 */
export function withoutWildTable(header: UnresolvedHeader): UnresolvedHeader {
  return hasWildTable(header) ? { ...header, refcountTableOffset: 0, refcountTableClusters: 0 } : header;
}

function hasWildTable({ refcountTableOffset, refcountTableClusters }: UnresolvedHeader): boolean {
  return refcountTableClusters > 0 && refcountTableOffset > MAX_HOST_OFFSET;
}

async function takeAway(storage: Storage, fault: ZcowError, log: FindingLog): Promise<void> {
  switch (fault.code) {
    case "QCOW2_REFTABLE_TOO_LARGE":
    case "QCOW2_REFTABLE_OFFSET":
      await dropRefcountTable(storage);
      return note(log, "refcount table", fault.message);
    case "QCOW2_BITMAPS":
      if (fault.data.field === "length") throw fault;
      await dropBitmaps(storage);
      return note(log, "bitmap directory", `${fault.message}; all bitmaps are lost`);
    default:
      throw fault;
  }
}

function note(log: FindingLog, structure: string, message: string): void {
  log.add(() => ({
    kind: "repair",
    severity: "note",
    repaired: true,
    structure,
    message: `Repairing the header: ${message}`,
  }));
}
