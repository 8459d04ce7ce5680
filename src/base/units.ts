/**
 * Positions that must not be mixed up are branded numbers. A brand costs nothing at run time; the
 * only way to make one is through the constructors here or the arithmetic of the format that owns it.
 * All are safe integers (at most 2^53 - 1).
 */
declare const brand: unique symbol;
type Branded<Name extends string> = number & { readonly [brand]: Name };

/** Byte offset in the image file. */
export type HostOffset = Branded<"HostOffset">;
/** Index of a host cluster: host offset divided by the cluster size. */
export type ClusterIndex = Branded<"ClusterIndex">;
/** Index of a zone, from 0. */
export type ZoneIndex = Branded<"ZoneIndex">;

export const hostOffset = (bytes: number): HostOffset => bytes as HostOffset;
export const clusterIndex = (index: number): ClusterIndex => index as ClusterIndex;
export const zoneIndex = (index: number): ZoneIndex => index as ZoneIndex;

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;
export const TiB = 1024 * GiB;

/** Bytes in a sector, the unit of zone reports and of the zoned format's alignment rules. */
export const SECTOR_SIZE = 512;
