/**
 * `zcow/storage`: where the bytes of an image live. Bring your own by fulfilling {@link Storage}.
 *
 * @module
 */
export type { MaybePromise } from "../base/maybe-promise.js";
export type { FileStorageOptions, IoMode } from "../storage/file-storage.js";
export { openFileStorage } from "../storage/file-storage.js";
export type { MemoryStorage, MemoryStorageOptions } from "../storage/memory-storage.js";
export { memoryStorage } from "../storage/memory-storage.js";
export { nullStorage } from "../storage/null-storage.js";
export type { Storage, StorageCapabilities, StorageExtent } from "../storage/storage.js";
