import { type ClusterIndex, clusterIndex, type HostOffset, hostOffset } from "../../base/units.js";
import type { Qcow2Geometry } from "./geometry.js";

/**
 * Arithmetic between the branded positions of one image. The only file that turns one kind of position into another.
 *
 * Sizes are powers of two, so multiplying by an inverse is exact, and much cheaper than `%` on numbers above 2^31.
 */

type ClusterSize = Pick<Qcow2Geometry, "clusterSize">;

/** The host cluster that holds `offset`. */
export function clusterAt(offset: number, geometry: ClusterSize): ClusterIndex {
  return clusterIndex(Math.floor(offset / geometry.clusterSize));
}

/** First byte of host cluster `cluster`. */
export function clusterStart(cluster: number, geometry: ClusterSize): HostOffset {
  return hostOffset(cluster * geometry.clusterSize);
}

/** A run of host clusters. */
export interface ClusterRun {
  readonly first: ClusterIndex;
  /** Clusters, at least 1. */
  readonly count: number;
}

/** The clusters that the bytes [offset, offset + length) touch; `length` at least 1. */
export function clustersTouched(offset: number, length: number, geometry: ClusterSize): ClusterRun {
  const first = clusterAt(offset, geometry);
  return { first, count: clusterAt(offset + length - 1, geometry) - first + 1 };
}
