import { type ZoneIndex, zoneIndex } from "../base/units.js";
import type { ZoneConfig } from "./zone-config.js";

/**
 * Where zones lie on a disk. All positions are bytes; all ends are exclusive.
 *
 * The last zone may be cut short by the end of the disk, and the part of a zone that can be written may end
 * before the zone does. Sizes need not be powers of two (old images), so nothing here masks or shifts.
 */
export class ZoneGeometry {
  /** Size of the disk. */
  readonly diskSize: number;
  readonly zoneSize: number;
  readonly zoneCapacity: number;
  readonly zoneCount: number;
  readonly conventionalZones: number;
  /** Where the first sequential zone starts: all below takes random writes. */
  readonly sequentialStart: number;

  constructor(
    config: Pick<ZoneConfig, "zoneSize" | "zoneCapacity" | "zoneCount" | "conventionalZones">,
    diskSize: number,
  ) {
    this.diskSize = diskSize;
    this.zoneSize = config.zoneSize;
    this.zoneCapacity = config.zoneCapacity;
    this.zoneCount = config.zoneCount;
    this.conventionalZones = config.conventionalZones;
    this.sequentialStart = config.conventionalZones * config.zoneSize;
  }

  /** The zone that holds byte `offset` of the disk. */
  indexOf(offset: number): ZoneIndex {
    return zoneIndex(Math.floor(offset / this.zoneSize));
  }

  start(zone: ZoneIndex): number {
    return zone * this.zoneSize;
  }

  /** Where the zone ends: at the next zone, or with the disk. */
  end(zone: ZoneIndex): number {
    return Math.min((zone + 1) * this.zoneSize, this.diskSize);
  }

  /** Where writing ends: start + capacity, or with the disk. */
  writableEnd(zone: ZoneIndex): number {
    return Math.min(zone * this.zoneSize + this.zoneCapacity, this.diskSize);
  }

  isConventional(zone: ZoneIndex): boolean {
    return zone < this.conventionalZones;
  }

  isZoneStart(offset: number): boolean {
    return offset % this.zoneSize === 0;
  }

  /** True when [offset, offset + length) is made of whole zones, a short last one included. */
  coversWholeZones(offset: number, length: number): boolean {
    const end = offset + length;
    return length > 0 && this.isZoneStart(offset) && (this.isZoneStart(end) || end === this.diskSize);
  }
}
