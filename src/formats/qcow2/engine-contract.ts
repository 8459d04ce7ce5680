import type { MaybePromise } from "../../base/maybe-promise.js";
import type { HostOffset } from "../../base/units.js";
import type { BlockExtent, DiskFiller } from "../../block/block-device.js";
import type { ChangeJournal } from "../../storage/change-journal.js";
import type { Storage } from "../../storage/storage.js";
import type { ImageBitmaps } from "./bitmaps/image-bitmaps.js";
import type { Qcow2Geometry } from "./geometry.js";
import type { Qcow2Header } from "./header.js";

/** What becomes of clusters that are dropped; see `Qcow2Engine.discard`. */
export type DiscardMode = "hint" | "forget" | "reserve";

/**
 * The mapped disk under a qcow2 device: guest bytes to host clusters, without zones.
 *
 * The plain device and the zoned device are both thin layers over it, which is why it is
 * a contract of its own: zones are tested with a fake engine, the engine without zones.
 * Arguments are already validated (range, alignment, writability).
 */
export interface Qcow2Engine {
  readonly storage: Storage;
  readonly geometry: Qcow2Geometry;
  /** The header as it is on disk now. Changed only through `updateHeader`. */
  readonly header: Qcow2Header;
  readonly writable: boolean;
  /** The bitmaps that every write is recorded in, as they are now; of writable images that have some. */
  readonly bitmaps?: ImageBitmaps | undefined;
  /** What is kept of changes that are not in the file yet, when anything is. */
  readonly journal?: ChangeJournal | undefined;

  read(offset: number, into: Uint8Array): MaybePromise<void>;
  write(offset: number, from: Uint8Array): MaybePromise<void>;
  /** Throws what stands in the way of a compressed write: `NOT_SUPPORTED`, or `MISALIGNED` for anything but whole clusters. */
  assertCompressible(offset: number, length: number): void;
  /**
   * Writes whole clusters, compressed where that makes them smaller; only the last cluster of the disk may be short. Clusters that
   * hold data already are refused with `COMPRESSED_REWRITE`, or replaced when `replace` is set.
   */
  writeCompressed(offset: number, from: Uint8Array, replace: boolean): Promise<void>;
  /** `unmap`: give space back where that keeps the zeros; otherwise keep allocated clusters in place as preallocated zeros. */
  writeZeroes(offset: number, length: number, unmap: boolean): MaybePromise<void>;
  /**
   * Drops whole clusters of the range. `hint`: as the stock tool does for a guest's discard.
   * `forget`: the mapping goes away altogether unless a backing file or snapshot shows through, then zero clusters.
   * `reserve`: as `forget`, but host clusters that only this disk uses stay reserved, and read as zeros.
   */
  discard(offset: number, length: number, mode: DiscardMode): MaybePromise<void>;
  /** Makes the disk `size` bytes long, more than it has, durably; see `growing.ts`. */
  grow(size: number): Promise<void>;
  /** Data, then refcounts, then L2 and L1 tables are durable, in that order. */
  flush(): MaybePromise<void>;
  /**
   * From guest offset `from` on, the caller writes clusters from their start on and never shows what is behind the end of
   * what is written. The engine may then leave there what a reserved cluster held before, until others could see it in the file.
   */
  allowLatePadding?(from: number): void;
  /**
   * One storage flush, for structures that the engine does not own. Use it instead of `storage.flush`: a failure while
   * guest data is outstanding must make every later flush fail, because what was lost cannot be told.
   */
  barrier(): MaybePromise<void>;
  extents(offset: number, length: number): AsyncIterable<BlockExtent>;
  /** Where guest data lies in the image file as it is, and nothing shows through where nothing is mapped. Parts are whole clusters. */
  readonly filler?: DiskFiller | undefined;

  /** Contiguous clusters with refcount 1, contents undefined. Durable after `flush`. */
  allocateClusters(count: number): Promise<HostOffset>;
  /** Drops one reference of each cluster of the range. */
  freeClusters(offset: HostOffset, count: number): Promise<void>;
  /** A metadata structure the engine does not own: every later write of data or tables into it is refused as corruption. */
  protectMetadata(structure: string, offset: HostOffset, length: number): void;
  unprotectMetadata(structure: string): void;
  /** Rewrites cluster 0 in one write and flushes. `change` gets the current header and returns the new one. */
  updateHeader(change: (header: Qcow2Header) => Qcow2Header): Promise<void>;
  /** Called by every changing request before anything else: clears unknown autoclear bits, sets the dirty bit when refcounts are lazy. */
  prepareForWriting(): MaybePromise<void>;
  /** Marks the image corrupt (incompatible bit 1) and refuses all later writes with `reason`. */
  markCorrupt(reason: Error): Promise<void>;

  /** Waits for requests in flight, flushes when writable, clears the dirty bit, closes the storage. Idempotent. */
  close(): Promise<void>;
}
