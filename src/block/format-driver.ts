import type { WarningSink } from "../base/errors.js";
import type { ChangeJournal } from "../storage/change-journal.js";
import type { Storage } from "../storage/storage.js";
import type { BlockDevice } from "./block-device.js";
import type { ImplicitFilePolicy } from "./open-policy.js";

/** How a format opens a disk on a storage. */
export interface OpenDeviceOptions {
  /** Default: as writable as the storage. */
  readonly readOnly?: boolean;
  /** Files that the image names; default `"deny"`. */
  readonly implicitFiles?: ImplicitFilePolicy;
  /** Receives what is worth telling but does not stop the work. Default: dropped. */
  readonly onWarning?: WarningSink;
  /**
   * Keeps changes of tables that are not in the image yet, so that nothing acknowledged after its `commit` is lost when the
   * process is killed. Formats without tables need none. Default: none.
   */
  readonly journal?: ChangeJournal;
  /** Reads an internal snapshot, by id or else by name, instead of the disk as it is now; read-only. */
  readonly snapshot?: string;
  /** Bytes of memory for cached tables, for formats that have tables. */
  readonly cacheBytes?: number;
}

/** Bytes at the start of an image that {@link FormatDriver.probe} sees (fewer when the file is shorter). */
export const PROBE_LENGTH = 512;

/** What a disk image format must offer to be found by name. */
export interface FormatDriver {
  readonly name: string;
  /** Whether images of this format can be made. */
  readonly creatable: boolean;
  /** True when `head`, the start of a file, has the mark of this format. Formats without a mark always say no. */
  probe(head: Uint8Array): boolean;
  /** The device owns the storage: closing the one closes the other. When opening fails, the storage stays the caller's. */
  open(storage: Storage, options: OpenDeviceOptions): Promise<BlockDevice>;
}
