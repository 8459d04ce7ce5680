import type { MaybePromise } from "../base/maybe-promise.js";

/** The zoned part of a device's limits (ZBC, NVMe ZNS, virtio-blk zoned share these notions). */
export interface ZonedLimits {
  readonly model: "host-managed";
  /** Bytes; every zone but possibly the last has this size. */
  readonly zoneSize: number;
  /** Bytes of each zone that can be written; <= zoneSize. */
  readonly zoneCapacity: number;
  /** Number of zones, conventional ones included. */
  readonly zoneCount: number;
  /** The first N zones take random writes. */
  readonly conventionalZones: number;
  /** 0 = no limit. */
  readonly maxOpenZones: number;
  /** 0 = no limit. */
  readonly maxActiveZones: number;
  /** Bytes of the largest append; at most the zone capacity. */
  readonly maxAppendBytes: number;
}

/** What requests must keep to, and what they had better keep to. Fixed while the device is open. */
export interface BlockLimits {
  /** Offsets and lengths of requests must be multiples of this many bytes (1 = none). Zoned disks take reads of any range. */
  readonly requestAlignment: number;
  /** Requests of this size and alignment (bytes) avoid copy-on-write. */
  readonly optimalAlignment: number;
  /** Present exactly on zoned devices. */
  readonly zoned: ZonedLimits | undefined;
}

/** How a write is done. */
export interface WriteOptions {
  /** Force unit access: the write and what it depends on are durable when it completes. */
  readonly fua?: boolean;
}

/** How zeros are written. */
export interface WriteZeroesOptions extends WriteOptions {
  /** Host space may be given back. Default true. */
  readonly unmap?: boolean;
}

/** How a run of guest bytes is stored. */
export interface BlockExtent {
  /** Guest offset in bytes. */
  readonly offset: number;
  /** Bytes, never 0. */
  readonly length: number;
  /** `data`: stored; `zero`: known to be zero by metadata; `unallocated`: not in this image (reads as zero or from the backing file). */
  readonly kind: "data" | "zero" | "unallocated";
  /** File offset of the run when it maps one to one to bytes of `file`. */
  readonly hostOffset: number | undefined;
  /** Name of the file that `hostOffset` counts in, where that is not the file of the device itself. */
  readonly file?: string;
  readonly compressed: boolean;
  /** 0 = this image, 1 = its backing image, and so on. */
  readonly depth: number;
  /** Reads as zeros, whatever the kind. */
  readonly zero: boolean;
}

/** A part of a disk, in bytes. */
export interface DiskPart {
  readonly offset: number;
  readonly length: number;
}

/** Where a part of a disk is to be stored. */
export interface FilledPlace extends DiskPart {
  /** Offset in the file of the device itself. */
  readonly host: number;
  /** The file reads as zeros there already. */
  readonly isZero: boolean;
}

/**
 * Stores what belongs in `places`, which are whole units of `limits.optimalAlignment`. Tells of each unit, in the order of the places,
 * whether it holds data (1) or is all zeros and was not touched (0); undefined when storing failed.
 */
export type StorePlaces = (places: readonly FilledPlace[]) => Promise<Uint8Array | undefined>;

/** A way to fill a disk past its device: by somebody who writes to the device's file himself. */
export interface DiskFiller {
  /**
   * Finds places for `parts`, which are whole units of `limits.optimalAlignment` in ascending order, has `store` write there, and makes
   * the disk read what was stored. When this resolves to false nothing has changed, and the parts have to be written by the device: some of
   * them are stored already, are being written, find no room, or `store` failed. Fails as `write` does.
   *
   * `store` is called at most once, when the places are decided on; nothing is given back, and nothing stored is read, before `turn`
   * resolves, too (default: it has). Nobody else may write to the parts meanwhile.
   */
  fillParts(parts: readonly DiskPart[], store: StorePlaces, turn?: Promise<void>): Promise<boolean>;
}

/**
 * The contract every disk fulfils.
 *
 * Offsets and lengths are bytes on the virtual disk. A request outside [0, size) fails with
 * `OUT_OF_RANGE`, a misaligned one with `MISALIGNED`, a change of a read-only device with `READ_ONLY`,
 * any request after `close` with `CLOSED`. Zero-length requests succeed and do nothing.
 * A write is acknowledged when its promise resolves (or the call returns `undefined`); it is durable
 * after the next `flush` that starts later and completes.
 */
export interface BlockDevice {
  /** Name of the format that drives this device, as in `qcow2` or `raw`. */
  readonly format: string;
  /** How messages call this device. */
  readonly name: string;
  /** Virtual size in bytes. Changes by `grow` only. */
  readonly size: number;
  readonly readOnly: boolean;
  readonly limits: BlockLimits;
  /**
   * Descriptor of the file of the device itself, as long as that is open: other threads may read there what `extents` gives a
   * `hostOffset` and no `file` for. Undefined where reads have to come through the device.
   */
  readonly descriptor?: number | undefined;
  /** Present where `descriptor` is, and others may write new parts of the disk there. What is not filled reads as zeros. */
  readonly filler?: DiskFiller | undefined;

  /** Fills `into` with the bytes from `offset`; what was never written is zeros. */
  read(offset: number, into: Uint8Array): MaybePromise<void>;
  /** Writes all of `from` at `offset`. On a sequential zone `offset` must be its write pointer (`ZONE_*` codes otherwise). */
  write(offset: number, from: Uint8Array, options?: WriteOptions): MaybePromise<void>;
  /**
   * Writes all of `from` in as little space as the format can: for images that are being filled. Whole clusters
   * (`limits.optimalAlignment`; only the last one of the disk may be short), `MISALIGNED` otherwise; clusters that do not shrink
   * are stored as they are. Where clusters hold data already it is refused (`COMPRESSED_REWRITE`), on a sequential zone it is a write
   * at the write pointer like any other. `NOT_SUPPORTED` where the format or the image has no compression.
   */
  writeCompressed(offset: number, from: Uint8Array): MaybePromise<void>;
  /** Makes `length` bytes read as zeros; on a sequential zone a write like any other. */
  writeZeroes(offset: number, length: number, options?: WriteZeroesOptions): MaybePromise<void>;
  /** A hint; refused on sequential zones. */
  discard(offset: number, length: number): MaybePromise<void>;
  /** Makes every write that was acknowledged before the call durable, with all it depends on. Nothing to do when read-only. */
  flush(): MaybePromise<void>;
  /**
   * Makes the disk `size` bytes long; what is new reads as zeros. Requests may be in flight meanwhile, and have the old size until it
   * resolves. Durable after the next flush. Calls take turns; the present size is done at once. Missing where the format cannot grow
   * while it is open, as on zoned disks. Fails with `READ_ONLY`, `INVALID_ARGUMENT`, `SHRINK_NOT_ALLOWED`, `MISALIGNED` for what is no whole
   * number of sectors and request alignments, and as the storage does; qcow2 also with `NOT_SUPPORTED` (version 2 with snapshots),
   * `FILE_TOO_LARGE` and `BITMAP_INCONSISTENT`. The disk has its old size then.
   */
  grow?(size: number): Promise<void>;
  /** Covers exactly [offset, offset + length), in order. */
  extents(offset: number, length: number): AsyncIterable<BlockExtent>;
  /** Idempotent: waits for requests in flight, flushes when writable, releases locks. */
  close(): Promise<void>;
  /** The same as `close`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}
