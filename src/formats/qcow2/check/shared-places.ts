import type { CheckSession } from "./check-session.js";

/** A structure whose place is known without reading it. Bytes. */
export interface Place {
  readonly structure: string;
  readonly offset: number;
  readonly length: number;
}

/** The structures that are written in place and therefore need clusters of their own, but for refcount blocks and L2 tables. */
export function fixedPlaces(session: CheckSession): Place[] {
  const { header, geometry } = session;
  const places: Place[] = [
    { structure: "header", offset: 0, length: geometry.clusterSize },
    { structure: "active L1 table", offset: header.l1TableOffset, length: header.l1Size * 8 },
    { structure: "snapshot table", offset: header.snapshotsOffset, length: session.snapshotTableLength },
    {
      structure: "encryption header",
      offset: header.cryptHeader?.offset ?? 0,
      length: header.cryptHeader?.length ?? 0,
    },
    { structure: "bitmap directory", offset: header.bitmaps?.offset ?? 0, length: header.bitmaps?.length ?? 0 },
    {
      structure: "refcount table",
      offset: header.refcountTableOffset,
      length: header.refcountTableClusters * geometry.clusterSize,
    },
  ];
  for (const { id, l1Offset, l1Length } of session.snapshotRoots) {
    places.push({ structure: `L1 table of snapshot ${id}`, offset: Number(l1Offset), length: l1Length * 8 });
  }
  return places.filter(({ length, offset }) => length > 0 && offset < session.fileLength);
}

/** True when something else uses a cluster of the place too; references of all but refcount blocks must be counted. */
export function isShared(session: CheckSession, { offset, length }: Place): boolean {
  return firstShared(session, offset, length) !== undefined;
}

function firstShared(session: CheckSession, offset: number, length: number): number | undefined {
  const { clusterSize } = session.geometry;
  const last = Math.min(Math.floor((offset + length - 1) / clusterSize), session.counts.clusters - 1);
  for (let cluster = Math.floor(offset / clusterSize); cluster <= last; cluster++) {
    if (session.counts.get(cluster) > 1) return cluster;
  }
  return undefined;
}

/**
 * Reports structures that do not have their clusters to themselves. Runs before refcount blocks are counted: those have findings of
 * their own. The stock tool raises the refcount of such clusters and calls the image sound.
 */
export function reportSharedPlaces(session: CheckSession): void {
  const { clusterSize, maxRefcount } = session.geometry;
  for (const place of fixedPlaces(session)) {
    const cluster = firstShared(session, place.offset, place.length);
    if (cluster !== undefined) report(session, place.structure, cluster * clusterSize);
    if (cluster !== undefined && place.structure === "refcount table") session.needsRebuild = true;
  }
  for (const [cluster, times] of session.visits.all()) {
    if (session.counts.get(cluster) === Math.min(times, maxRefcount)) continue;
    report(session, "L2 table", cluster * clusterSize);
  }
}

function report(session: CheckSession, structure: string, offset: number): void {
  session.mappingDamaged = true;
  session.report(
    { kind: "shared-table", severity: "corruption", structure, offset },
    () => `ERROR ${structure} offset=0x${offset.toString(16)}: cluster is used by something else as well`,
  );
}
