import { countBitmaps } from "./bitmap-references.js";
import type { CheckSession } from "./check-session.js";
import { countCryptHeader } from "./crypt-references.js";
import { MappingWalk } from "./l1-references.js";
import { countRefcountTable } from "./refcount-structures.js";
import { countRegion } from "./regions.js";
import { countSnapshots, readSnapshotRoots } from "./snapshot-references.js";
import { countZoneTable } from "./zone-table.js";

/**
 * Counts every reference in the image except those of refcount structures, in the order of the stock tool, plus
 * the refcount table where `withRefcountTable`. Refcount blocks come after it (`countRefcountBlocks`).
 */
export async function countReferences(session: CheckSession, withRefcountTable: boolean): Promise<MappingWalk> {
  const { header, geometry } = session;
  const roots = await readSnapshotRoots(session);
  session.progress?.expectEntries(roots.reduce((sum, { l1Length }) => sum + l1Length, header.l1Size));
  countRegion(session, 0, geometry.clusterSize);
  const walk = new MappingWalk(session);
  await walk.countL1({ offset: header.l1TableOffset, length: header.l1Size, active: true });
  await countSnapshots(session, walk, roots);
  await walk.settle();
  if (withRefcountTable) countRefcountTable(session);
  await countCryptHeader(session);
  await countBitmaps(session);
  countZoneTable(session);
  return walk;
}
