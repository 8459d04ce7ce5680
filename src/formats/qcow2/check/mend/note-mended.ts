import type { FindingKind } from "../check-result.js";
import type { CheckSession } from "../check-session.js";

const KINDS: Readonly<Record<string, FindingKind>> = {
  "L1 table": "l1-entry",
  "L2 table": "l2-entry",
  "data cluster": "l2-entry",
  "snapshot table": "snapshot-table",
  "bitmap directory": "bitmap",
  "bitmap table": "bitmap",
  "refcount table": "refcount-table",
};

/** One thing put right in a structure, told and added to the total. `message` says what it is now. */
export function noteMended(session: CheckSession, structure: string, offset: number, message: string): void {
  session.tally.corruptionsFixed++;
  session.report(
    { kind: KINDS[structure] ?? "repair", severity: "note", repaired: true, structure, offset },
    () => `Repairing ${message}`,
  );
}
