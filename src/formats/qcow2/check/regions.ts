import type { CheckSession } from "./check-session.js";

/**
 * Counts one reference for every cluster that [offset, offset + length) touches.
 *
 * The last cluster of a file may be partly there, so a region may reach past the end of the file by
 * less than a cluster; further out it is reported and not counted, which also bounds the memory that offsets from
 * the file can ask for. `offsetText` prints offsets that a double cannot hold exactly.
 */
export function countRegion(
  session: CheckSession,
  offset: number,
  length: number,
  offsetText?: () => string,
  times = 1,
): void {
  if (length <= 0) return;
  const { clusterSize } = session.geometry;
  if (offset + length - session.fileLength >= clusterSize) {
    session.mappingDamaged = true;
    session.report(
      { kind: "past-end", severity: "corruption", structure: "region", offset },
      () =>
        "ERROR: counting reference for region exceeding the end of the file by one cluster or more: " +
        `offset 0x${offsetText?.() ?? offset.toString(16)} size 0x${length.toString(16)}`,
      times,
    );
    return;
  }
  const last = Math.min(Math.floor((offset + length - 1) / clusterSize), session.counts.clusters - 1);
  for (let cluster = Math.floor(offset / clusterSize); cluster <= last; cluster++)
    countCluster(session, cluster, times);
}

/** Counts `times` references of one cluster of the file. */
export function countCluster(session: CheckSession, cluster: number, times = 1): void {
  const { counts, geometry } = session;
  if (times === 1) {
    if (!counts.add(cluster)) reportOverflow(session, cluster, 1);
    return;
  }
  const wanted = counts.get(cluster) + times;
  counts.set(cluster, Math.min(wanted, geometry.maxRefcount));
  if (wanted > geometry.maxRefcount) reportOverflow(session, cluster, wanted - geometry.maxRefcount);
}

function reportOverflow(session: CheckSession, cluster: number, times: number): void {
  const offset = cluster * session.geometry.clusterSize;
  session.mappingDamaged = true;
  session.report(
    { kind: "refcount-overflow", severity: "corruption", structure: `cluster ${cluster}`, offset },
    () =>
      `ERROR: overflow cluster offset=0x${offset.toString(16)}\n` +
      "Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean copy if the " +
      "image cannot be opened for writing",
    times,
  );
}
