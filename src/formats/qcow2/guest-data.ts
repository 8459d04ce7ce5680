import type { MaybePromise } from "../../base/maybe-promise.js";
import type { DebugEvent } from "../../storage/debug/events.js";
import type { Storage } from "../../storage/storage.js";

/**
 * Where the bytes of guest clusters live, and what happens to them on the way: in the image file as they are, in an external
 * data file, encrypted. Metadata never goes through here, and neither do compressed clusters.
 *
 * Every call names the same bytes twice: by `host`, their offset in `storage` as the mapping has it, and by `guest`, their
 * offset on the virtual disk; a cipher may derive its IV from either. A call stays within neighbouring clusters that are
 * mapped alike, is of any alignment, and may overlap others in time: an implementation that transforms whole sectors
 * reads and merges the parts of sectors at both ends, one writer of a sector at a time. Implementations may be stacked.
 */
export interface GuestData {
  /** The file that holds the bytes: for its name, its holes, and to give space back. */
  readonly storage: Storage;
  /** The storage whose bytes at `host` are the guest's as they are; undefined when they need treatment. Requests take this short way. */
  readonly direct: Storage | undefined;
  /** The bytes are stored as they are, although requests must not take the short way. */
  readonly isUntreated?: boolean;
  /** The bytes are in the image file, in clusters that are allocated and counted there; otherwise `host` always equals `guest`. */
  readonly inImage: boolean;
  /** Bytes of `storage` that were never written read as zeros through `read`. */
  readonly freshIsZero: boolean;

  /** Says what the next call is, when it is no request of the guest's, for whoever injects faults. */
  announce?(event: DebugEvent): void;
  /** Fills `into`. */
  read(host: number, guest: number, into: Uint8Array): MaybePromise<void>;
  /** Writes all of `from`, which stays as it is. */
  write(host: number, guest: number, from: Uint8Array): MaybePromise<void>;
  /** Makes `length` bytes read as zeros. */
  writeZeroes(host: number, guest: number, length: number): MaybePromise<void>;
  /**
   * Whole guest clusters, cut at the end of the disk, lost their data by a discard or a write of zeros; only called where
   * `inImage` is false. `unmap`: their space may be given back.
   */
  erased(guest: number, length: number, unmap: boolean): MaybePromise<void>;
  /**
   * Sees to it that a disk of `size` bytes, larger than it is, has its place, and that what is new there holds nothing of before; only
   * called where `inImage` is false. Where the disk ends is left as it is.
   */
  makeRoom(size: number): MaybePromise<void>;
  /** The disk ends at byte `size` from now on. */
  setEnd(size: number): void;
  /** Makes what was written durable, before any metadata that refers to it; the image file itself is flushed right after. */
  flush(): MaybePromise<void>;
  /** Closes what the image file does not include. Idempotent. */
  close(): Promise<void>;
}

/** Guest data in the image file, untreated: every image without encryption and without an external data file. */
export class ImageFileData implements GuestData {
  readonly storage: Storage;
  readonly direct: Storage;
  readonly inImage = true;
  readonly freshIsZero = true;

  constructor(storage: Storage) {
    this.storage = storage;
    this.direct = storage;
  }

  read(host: number, _guest: number, into: Uint8Array): MaybePromise<void> {
    return this.storage.read(host, into);
  }

  write(host: number, _guest: number, from: Uint8Array): MaybePromise<void> {
    return this.storage.write(host, from);
  }

  writeZeroes(host: number, _guest: number, length: number): MaybePromise<void> {
    return this.storage.writeZeroes(host, length);
  }

  /** Clusters of the image file are given back when nothing durable refers to them (reclaim.ts). */
  erased(): undefined {
    return undefined;
  }

  /** Clusters are allocated when they are written. */
  makeRoom(): undefined {
    return undefined;
  }

  setEnd(): void {}

  /** Nothing to do: whoever flushes metadata flushes the image file. */
  flush(): undefined {
    return undefined;
  }

  async close(): Promise<void> {}
}
