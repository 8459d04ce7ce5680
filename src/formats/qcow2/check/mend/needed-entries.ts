import { ceilDiv } from "../../../../base/integers.js";
import type { Qcow2Geometry } from "../../geometry.js";
import type { Snapshot } from "../../snapshots/snapshot.js";

/** L1 entries that a snapshot has a use for: those of its disk and, behind them, of its VM state. May be more than any table can have. */
export function neededEntries({ diskSize, vmStateSize }: Snapshot, { size, l2Coverage }: Qcow2Geometry): number {
  return ceilDiv(Number(diskSize ?? size), l2Coverage) + ceilDiv(Number(vmStateSize), l2Coverage);
}
