import { ZcowError } from "../base/errors.js";
import type { BlockDevice, ZonedLimits } from "../block/block-device.js";
import { isZonedDevice, type ZonedDevice } from "../block/zoned-device.js";
import type { ZoneDescriptor, ZoneState } from "../zoned/zone-state.js";

/** The zones of a disk, and what they add up to. Sizes and positions in bytes. */
export interface ZoneReport {
  readonly limits: ZonedLimits;
  /** The zones that were asked for. */
  readonly zones: readonly ZoneDescriptor[];
  /** How many of them are in each state; states without a zone are left out. */
  readonly states: ReadonlyMap<ZoneState, number>;
  /** Bytes below the write pointers of these zones, conventional zones left out. */
  readonly written: number;
}

/** The device as a zoned one; fails with `NOT_SUPPORTED` when it has no zones. */
export function requireZoned(device: BlockDevice): ZonedDevice {
  if (isZonedDevice(device)) return device;
  throw new ZcowError("NOT_SUPPORTED", `${device.name} is not zoned: it has no zones to report or manage`, {
    data: { path: device.name },
  });
}

/**
 * Reports the zones from the one that holds `offset`, at most `count` (default: all that follow).
 *
 * Fails with `NOT_SUPPORTED` on disks without zones and `OUT_OF_RANGE` for an offset past the end.
 */
export function reportZones(device: BlockDevice, offset = 0, count?: number): ZoneReport {
  const zoned = requireZoned(device);
  const { zoned: limits } = zoned.limits;
  if (limits === undefined) throw new TypeError("a zoned device has zoned limits");
  const zones = zoned.report(offset, count);
  const states = new Map<ZoneState, number>();
  let written = 0;
  for (const zone of zones) {
    states.set(zone.state, (states.get(zone.state) ?? 0) + 1);
    if (zone.type === "sequential-write-required") written += writtenBytes(zone);
  }
  return { limits, zones, states, written };
}

/** Bytes between the start of a zone and its write pointer. */
export function writtenBytes(zone: ZoneDescriptor): number {
  return zone.writePointer - zone.start;
}
