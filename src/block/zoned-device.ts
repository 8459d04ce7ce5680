import type { MaybePromise } from "../base/maybe-promise.js";
import type { ZoneOperation } from "../zoned/zone-operations.js";
import type { ZoneDescriptor } from "../zoned/zone-state.js";
import type { BlockDevice, WriteOptions } from "./block-device.js";

/** States an administrator can force on a zone for fault injection; `online` takes the fault away. */
export type ForcedZoneState = "read-only" | "offline" | "online";

/**
 * A host-managed zoned disk. Its `limits.zoned` is present.
 *
 * Ranges given to the zone operations are bytes: the offset is the start of a zone and the length a multiple of
 * the zone size (a short last zone may be given whole); every zone of the range is acted on. A range
 * operation is all-or-nothing as far as limits can be checked in advance. Errors carry the codes `ZONE_*`.
 */
export interface ZonedDevice extends BlockDevice {
  /** Zones from the one that holds `offset`, at most `count` of them (default: all that follow). */
  report(offset?: number, count?: number): ZoneDescriptor[];
  /** Writes `from` at the write pointer of the zone that starts at `zoneStart`; resolves to the offset it got. */
  append(zoneStart: number, from: Uint8Array, options?: WriteOptions): MaybePromise<number>;
  /** Opens explicitly; lasts until the zone is closed, full or reset, or the device is closed. */
  openZones(offset: number, length: number): Promise<void>;
  /** Closes open zones; one that holds no data becomes empty. */
  closeZones(offset: number, length: number): Promise<void>;
  /** Durable when it resolves. */
  finishZones(offset: number, length: number): Promise<void>;
  /** Durable when it resolves; the data is gone and its space given back. Skips conventional zones inside a range. */
  resetZones(offset: number, length: number): Promise<void>;
  /**
   * The form for all zones, which picks its zones as the zoned command sets do: open takes the closed ones, close
   * the open ones, finish the open and closed ones, reset all sequential ones; read-only and offline zones are passed over.
   */
  manageAllZones(operation: ZoneOperation): Promise<void>;
  /** Fault injection; lasts until the device is closed. */
  setZoneState(offset: number, state: ForcedZoneState): Promise<void>;
}

/** True when the device has zones, so that the operations of {@link ZonedDevice} are there. */
export function isZonedDevice(device: BlockDevice): device is ZonedDevice {
  return device.limits.zoned !== undefined;
}
