/**
 * `zcow/block`: the contract every disk fulfils, and a base class for drivers of one's own.
 *
 * @module
 */
export type { MaybePromise } from "../base/maybe-promise.js";
export type { BlockDeviceDescription } from "../block/base-device.js";
export { BaseBlockDevice } from "../block/base-device.js";
export type {
  BlockDevice,
  BlockExtent,
  BlockLimits,
  WriteOptions,
  WriteZeroesOptions,
  ZonedLimits,
} from "../block/block-device.js";
export type { FormatDriver, OpenDeviceOptions } from "../block/format-driver.js";
export { PROBE_LENGTH } from "../block/format-driver.js";
export type { ImplicitFile, ImplicitFilePolicy, ImplicitFileRole } from "../block/open-policy.js";
export { permitImplicitFile } from "../block/open-policy.js";
export type { CreateRawOptions, RawPreallocation } from "../formats/raw/create.js";
export { createRaw, RAW_PREALLOCATIONS } from "../formats/raw/create.js";
export type { OpenRawOptions } from "../formats/raw/device.js";
export { openRaw } from "../formats/raw/device.js";
