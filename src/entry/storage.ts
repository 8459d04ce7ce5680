/**
 * `zcow/storage`: where the bytes of an image live, and wrappers for testing. Bring your own by fulfilling {@link Storage}.
 *
 * @module
 */
export type { MaybePromise } from "../base/maybe-promise.js";
export type { CrashOptions, Random, RecordedChange, RecordedFlush } from "../storage/crash-image.js";
export type { Fault, FaultPlan, FaultRecord, FaultRule, FaultStorage } from "../storage/fault-storage.js";
export { faultStorage } from "../storage/fault-storage.js";
export type { FileStorageOptions, IoMode, LockOptions } from "../storage/file-storage.js";
export { openFileStorage } from "../storage/file-storage.js";
export type { MemoryStorage, MemoryStorageOptions } from "../storage/memory-storage.js";
export { memoryStorage } from "../storage/memory-storage.js";
export { nullStorage } from "../storage/null-storage.js";
export { offsetStorage } from "../storage/offset-storage.js";
export type { RecordingStorage } from "../storage/recording-storage.js";
export { recordingStorage } from "../storage/recording-storage.js";
export type { Storage, StorageCapabilities, StorageExtent } from "../storage/storage.js";
export type { StorageCall, StorageCallKind } from "../storage/storage-call.js";
export type { StorageTrace, TraceSink } from "../storage/tracing-storage.js";
export { tracingStorage } from "../storage/tracing-storage.js";
