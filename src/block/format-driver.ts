import type { WarningSink } from "../base/errors.js";
import type { ChangeJournal } from "../storage/change-journal.js";
import type { Storage } from "../storage/storage.js";
import type { BlockDevice } from "./block-device.js";
import type { ImplicitFilePolicy } from "./open-policy.js";
import type { PassphraseSource } from "./passphrase.js";

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
  /**
   * Zones keep their host space when they are reset, which makes writing them again faster: for disks that are rewritten over and
   * over. They read as zeros all the same, and a reset without it gives the space back. Nothing to images without zones. Default false.
   */
  readonly keepZoneSpace?: boolean;
  /** Reads an internal snapshot, by id or else by name, instead of the disk as it is now; read-only. */
  readonly snapshot?: string;
  /** Bytes of memory for cached tables, for formats that have tables. */
  readonly cacheBytes?: number;
  /** Opens a file that the image names and the policy lets through, by its resolved path. Default: as a file of this host. */
  readonly openFile?: OpenNamedFile;
  /** The formats that a backing image may have. Default: those of this library. */
  readonly formats?: FormatLookup;
  /**
   * What shows where the image has nothing, in place of the backing image that it names: any disk, which the device then
   * owns, or `"none"` for zeros. A device that was opened with it may have been given the wrong one: that is the caller's care.
   */
  readonly backing?: BlockDevice | "none";
  /** The external data file, in place of the one that the image names. The device owns it. */
  readonly dataFile?: Storage;
  /** The images that this one is a backing image of, nearest first, by the identity of their files. Set by who opens a chain. */
  readonly overlays?: readonly string[];
  /** Opens encrypted images; asked for only when the image is one. */
  readonly passphrase?: PassphraseSource | undefined;
}

/** Opens the file at `path`; writable for a data file of a writable image, read-only otherwise. */
export type OpenNamedFile = (path: string, access: { readonly writable: boolean }) => Promise<Storage>;

/** Finds formats by name and by mark. */
export interface FormatLookup {
  /** Fails with `FORMAT_UNKNOWN`. */
  byName(name: string): FormatDriver;
  /** The format whose mark is in `head`, the first {@link PROBE_LENGTH} bytes; raw when there is none. */
  recognise(head: Uint8Array): FormatDriver;
}

/** Bytes at the start of an image that {@link FormatDriver.probe} sees (fewer when the file is shorter). */
export const PROBE_LENGTH = 512;

/** What a disk image format must offer to be found by name. */
export interface FormatDriver {
  readonly name: string;
  /** Whether images of this format can be made. */
  readonly creatable: boolean;
  /** Whether `writeCompressed` can work. */
  readonly compresses: boolean;
  /** True when `head`, the start of a file, has the mark of this format. Formats without a mark always say no. */
  probe(head: Uint8Array): boolean;
  /** The device owns the storage: closing the one closes the other. When opening fails, the storage stays the caller's. */
  open(storage: Storage, options: OpenDeviceOptions): Promise<BlockDevice>;
}
