/**
 * Disk images: open, create, describe, check and map them, and manage the zones of zoned ones.
 *
 * Everything here is also reachable by subject: `zcow/errors`, `zcow/storage`, `zcow/block`, `zcow/zoned`, `zcow/qcow2`.
 */
export type { ErrorCategory, ErrorCode, ErrorCodeInfo } from "./base/error-codes.js";
export {
  type ErrorData,
  type ErrorExtras,
  type ErrorValue,
  isZcowError,
  type Warning,
  type WarningSink,
  ZcowError,
} from "./base/errors.js";
export type { MaybePromise } from "./base/maybe-promise.js";
export { formatSize, parseSize } from "./base/size-text.js";
export type {
  BlockDevice,
  BlockExtent,
  BlockLimits,
  WriteOptions,
  WriteZeroesOptions,
  ZonedLimits,
} from "./block/block-device.js";
export type { OpenDeviceOptions } from "./block/format-driver.js";
export type { ImplicitFile, ImplicitFilePolicy, ImplicitFileRole } from "./block/open-policy.js";
export type { Passphrase, PassphraseRequest, PassphraseSource } from "./block/passphrase.js";
export { type ForcedZoneState, isZonedDevice, type ZonedDevice } from "./block/zoned-device.js";
export { type CreateImageExtras, type CreateImageOptions, createImage } from "./formats/create-image.js";
export { type FormatChoice, type OpenImageOptions, openImage } from "./formats/open-image.js";
export type { DirtyBits, DirtyRange } from "./formats/qcow2/bitmaps/dirty-bits.js";
export type { CheckOptions } from "./formats/qcow2/check/check.js";
export type { CheckFinding, CheckResult, FindingKind, FindingSeverity } from "./formats/qcow2/check/check-result.js";
export type { CompactOptions, CompactResult } from "./formats/qcow2/compact/compact.js";
export type { CreateEncryptOptions, CreateQcow2Options, CreateZoneOptions } from "./formats/qcow2/create-options.js";
export type { EncryptionInfo, KeySlotInfo } from "./formats/qcow2/encryption/describe-encryption.js";
export type { KeySlotChange } from "./formats/qcow2/encryption/key-slots.js";
export type { MeasuredBitmap, Measurement } from "./formats/qcow2/measure.js";
export type { Snapshot } from "./formats/qcow2/snapshots/snapshot.js";
export type { ZonedExtension, ZonedLayout } from "./formats/qcow2/zoned-extension.js";
export type { CreateRawOptions, RawPreallocation } from "./formats/raw/create.js";
export { type FormatName, probeFormat } from "./formats/registry.js";
export { type AmendImageOptions, amendImage } from "./jobs/amend.js";
export { type BitmapAction, type ChangeBitmapOptions, changeBitmap, readBitmap } from "./jobs/bitmap.js";
export { type CheckImageOptions, checkImage, type ImageCheck } from "./jobs/check.js";
export { type CommitImageOptions, commitImage } from "./jobs/commit/commit.js";
export { type CompactImageOptions, compactImage } from "./jobs/compact.js";
export { type CompareOptions, type Comparison, compareDisks } from "./jobs/compare/compare.js";
export type { ZoneDifference } from "./jobs/compare/compare-zones.js";
export { type DumpImageOptions, type DumpResult, dumpImage, restoreDump } from "./jobs/dump/dump.js";
export {
  type DescribeImageOptions,
  describeImage,
  type ImageInfo,
  type Qcow2Info,
} from "./jobs/info.js";
export { describeChain } from "./jobs/info-chain.js";
export { type InspectImageOptions, inspectImage } from "./jobs/inspect/inspect.js";
export type {
  ImageReference,
  InspectFinding,
  InspectLevel,
  InspectReport,
  InspectResources,
  ReferenceReach,
} from "./jobs/inspect/report.js";
export { type MapEntry, mapImage } from "./jobs/map.js";
export { type MeasureSource, measureImage } from "./jobs/measure/measure.js";
export { type RebaseImageOptions, rebaseImage } from "./jobs/rebase/rebase.js";
export { type ResizeImageOptions, resizeImage } from "./jobs/resize.js";
export {
  applySnapshot,
  type ChooseSnapshotOptions,
  type CreateSnapshotOptions,
  createSnapshot,
  deleteSnapshot,
  listSnapshots,
  type SnapshotImageOptions,
} from "./jobs/snapshot.js";
export { reportZones, type ZoneReport } from "./jobs/zone-report.js";
export { type FileStorageOptions, type IoMode, type LockOptions, openFileStorage } from "./storage/file-storage.js";
export { type MemoryStorage, type MemoryStorageOptions, memoryStorage } from "./storage/memory-storage.js";
export type { Storage, StorageCapabilities, StorageExtent } from "./storage/storage.js";
export type { ZoneDescriptor, ZoneState, ZoneType } from "./zoned/zone-state.js";
