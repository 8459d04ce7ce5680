import { ZcowError } from "../../base/errors.js";
import { isPromise } from "../../base/maybe-promise.js";
import { KiB } from "../../base/units.js";
import type { BlockDevice } from "../../block/block-device.js";
import { isZonedDevice, type ZonedDevice } from "../../block/zoned-device.js";
import type { ZoneDescriptor } from "../../zoned/zone-state.js";
import { geometryDifference } from "../compare/compare-zones.js";
import { committedRuns } from "./committed-runs.js";
import { type Pace, RunCopier } from "./copy-runs.js";

const PIECE_BYTES = 256 * KiB;

/**
 * Commits zone by zone. A zone of the overlay went on from the write pointer that it took over, or it was reset and holds all it
 * has by itself: the first kind is appended to, the second is reset and written anew. Both can be begun again after a crash, as the
 * overlay has all that is written. Write pointers and full zones are the overlay's afterwards.
 *
 * Fails with `NOT_SUPPORTED` when the disks are not divided in the same way.
 */
export async function commitZones(top: ZonedDevice, base: BlockDevice, baseDepth: number, pace: Pace): Promise<void> {
  if (!isZonedDevice(base)) return commitToPlain(top, base, baseDepth, pace);
  requireSameGeometry(top, base);
  for (const zone of top.report()) {
    const below = base.report(zone.start, 1)[0];
    if (below === undefined) throw new Error("both disks have the same zones");
    const copier = new RunCopier(top, base, pace, 1);
    if (zone.type === "conventional") {
      for await (const run of committedRuns(top, baseDepth, zone.start, zone.length)) await copier.copy(run);
    } else {
      await commitZone({ top, base, baseDepth, copier }, zone, below);
    }
    await copier.settled();
  }
}

function requireSameGeometry(top: ZonedDevice, base: ZonedDevice): void {
  const [a, b] = [top.limits.zoned, base.limits.zoned];
  const difference = a === undefined || b === undefined ? undefined : geometryDifference(a, b);
  if (difference === undefined) return;
  const { what, first, second } = difference;
  throw new ZcowError("NOT_SUPPORTED", `${top.name} has ${what} ${first}, and ${base.name} below it ${second}`, {
    data: { path: base.name, field: what, value: second, limit: first },
  });
}

interface Commit {
  readonly top: ZonedDevice;
  readonly base: ZonedDevice;
  readonly baseDepth: number;
  readonly copier: RunCopier;
}

async function commitZone(commit: Commit, zone: ZoneDescriptor, below: ZoneDescriptor): Promise<void> {
  const { base, copier } = commit;
  let from = below.writePointer;
  if (zone.writePointer < from || !(await readsTheSame(commit, zone.start, from))) {
    await requireOwnData(commit, zone);
    await base.resetZones(zone.start, zone.length);
    from = zone.start;
  }
  if (from < zone.writePointer) {
    await copier.copy({ offset: from, length: zone.writePointer - from, zero: false });
    await copier.settled();
  }
  if (zone.state === "full" && base.report(zone.start, 1)[0]?.state !== "full") {
    await base.finishZones(zone.start, zone.length);
  }
}

/** What the overlay has in [from, to) is what the base has; what it does not have shows through. */
async function readsTheSame({ top, base, baseDepth }: Commit, from: number, to: number): Promise<boolean> {
  const [a, b] = [new Uint8Array(PIECE_BYTES), new Uint8Array(PIECE_BYTES)];
  for await (const run of committedRuns(top, baseDepth, from, to - from)) {
    for (let at = run.offset; at < run.offset + run.length; at += PIECE_BYTES) {
      const count = Math.min(PIECE_BYTES, run.offset + run.length - at);
      const [mine, theirs] = [a.subarray(0, count), b.subarray(0, count)];
      for (const wait of [top.read(at, mine), base.read(at, theirs)]) if (isPromise(wait)) await wait;
      if (Buffer.compare(mine, theirs) !== 0) return false;
    }
  }
  return true;
}

/** A zone that is written anew must not need what the base is about to lose. */
async function requireOwnData({ top, base, baseDepth }: Commit, zone: ZoneDescriptor): Promise<void> {
  const length = zone.writePointer - zone.start;
  if (length === 0) return;
  for await (const extent of top.extents(zone.start, length)) {
    if (extent.zero || extent.depth < baseDepth) continue;
    throw new ZcowError(
      "NOT_SUPPORTED",
      `zone ${zone.index} of ${top.name} differs from that of ${base.name} and still shows its data at offset ${extent.offset}: the base was changed after the overlay was made`,
      { data: { path: top.name, structure: `zone ${zone.index}`, offset: extent.offset } },
    );
  }
}

/** Over a disk without zones, what lies past a write pointer reads as zeros whatever is below. */
async function commitToPlain(top: ZonedDevice, base: BlockDevice, baseDepth: number, pace: Pace): Promise<void> {
  const copier = new RunCopier(top, base, pace);
  for (const { start, length, writePointer, type } of top.report()) {
    const end = type === "conventional" ? start + length : writePointer;
    for await (const run of committedRuns(top, baseDepth, start, end - start)) await copier.copy(run);
    if (end < start + length) await copier.copy({ offset: end, length: start + length - end, zero: true });
  }
  await copier.settled();
}
