/**
 * `zcow/zoned`: host-managed zoned disks (docs/format.md), and the words their reports use.
 *
 * @module
 */
export type { ZonedLimits } from "../block/block-device.js";
export type { ForcedZoneState, ZonedDevice } from "../block/zoned-device.js";
export { isZonedDevice } from "../block/zoned-device.js";
export type { ZoneDescriptor, ZoneState, ZoneType } from "../zoned/zone-state.js";
export { ZONE_CONDITION, ZONE_TYPE } from "../zoned/zone-state.js";
