import type { Storage } from "../../../../storage/storage.js";
import type { Qcow2Header } from "../../header.js";
import { readUnresolvedHeader } from "../../header-read.js";
import { CheckSession, type FindingLog } from "../check-session.js";
import { clearUnknownAutoclear } from "../header-patch.js";
import { mendBitmaps } from "./mend-bitmaps.js";
import { mendHeader } from "./mend-header.js";
import { mendSnapshotTable } from "./mend-snapshots.js";

/**
 * What a repair puts right before the image can be walked at all: fields of the header, the snapshot table, the bitmap directory and its
 * tables. Of a sound image nothing is written. Returns the session, for its totals and what may have ended it early.
 */
export async function mendStructures(
  storage: Storage,
  log: FindingLog,
  attempt: (session: CheckSession, step: () => Promise<void>) => Promise<string | undefined>,
): Promise<{ readonly fixed: number; readonly failure: string | undefined; readonly session: CheckSession }> {
  const fixedInHeader = await mendHeader(storage, log);
  const { header } = await readUnresolvedHeader(storage, { mode: "check", writable: true });
  const session = new CheckSession(storage, withoutZones(header), "all", log);
  const failure = await attempt(session, async () => {
    session.header = await clearUnknownAutoclear(storage, session.header);
    await mendSnapshotTable(session);
    await mendBitmaps(session);
  });
  return { fixed: fixedInHeader + session.tally.corruptionsFixed, failure, session };
}

/** Zones have a repair of their own, which comes last. */
function withoutZones(header: Omit<Qcow2Header, "zoned">): Qcow2Header {
  return { ...header, zoned: undefined };
}
