import { isZcowError, type WarningSink, ZcowError } from "../../base/errors.js";
import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { KiB } from "../../base/units.js";
import type { BlockDevice } from "../../block/block-device.js";
import type { ClusterCodec } from "../../codec/cluster-codec.js";
import type { ChangeJournal } from "../../storage/change-journal.js";
import type { Storage } from "../../storage/storage.js";
import { ClusterAllocator } from "./allocator.js";
import type { ImageBitmaps } from "./bitmaps/image-bitmaps.js";
import { CompressedClusters } from "./compressed-clusters.js";
import { loadCodec } from "./compression.js";
import { DataRequests } from "./data-io.js";
import { debuggedData } from "./debugged-data.js";
import { DeferredFrees } from "./deferred-frees.js";
import { isL1EntryCorrupt, l1Offset } from "./entries.js";
import { COMPATIBLE, INCOMPATIBLE } from "./features.js";
import type { Qcow2Geometry } from "./geometry.js";
import { type GuestData, ImageFileData } from "./guest-data.js";
import type { Qcow2Header } from "./header.js";
import { ImageHeader } from "./image-header.js";
import { Reservations } from "./in-flight.js";
import { L2Tables } from "./l2-tables.js";
import { LatePadding } from "./late-padding.js";
import { TABLE_ENTRY_BYTES } from "./limits.js";
import { GuestMap } from "./mapping.js";
import { MetadataChanges } from "./metadata-changes.js";
import { type CompressedReader, OldContents } from "./old-contents.js";
import { MetadataOwners, OWNER_HEADER, OWNER_L1, OWNER_L2 } from "./overlap.js";
import { Padding } from "./padding.js";
import { Refcounts } from "./refcounts.js";
import { RootTable } from "./root-table.js";
import { noJournal } from "./session.js";
import { TableCache } from "./table-cache.js";
import { WriteBack } from "./write-back.js";

/** Bytes of a table read or written at once: small enough that a random miss is cheap, large enough for scans. */
const SLICE_BYTES = 16 * KiB;
/** Part of the cache that refcount blocks get: they serve allocation only, so a quarter is plenty. */
const REFCOUNT_SHARE = 1 / 4;

export interface ImageStateInput {
  readonly storage: Storage;
  readonly geometry: Qcow2Geometry;
  readonly header: Qcow2Header;
  readonly l1: RootTable;
  readonly writable: boolean;
  /** Bytes for L2 tables and refcount blocks together. */
  readonly cacheBytes: number;
  readonly onWarning: WarningSink;
  /** Kept while the image is written to. */
  readonly journal?: ChangeJournal | undefined;
  /** Where guest bytes live; default: in the image file, as they are. */
  readonly data?: GuestData;
  /** The bitmaps of the image, when it is writable and has some. */
  readonly bitmaps?: ImageBitmaps | undefined;
  /** What shows through clusters that are not mapped; default: zeros. Closed with the image. */
  readonly backing?: BlockDevice;
}

/** The parts of an open image, put together. Each part knows one thing; the operations in the files beside work on them. */
export class ImageState {
  readonly storage: Storage;
  readonly geometry: Qcow2Geometry;
  readonly header: ImageHeader;
  readonly writable: boolean;
  readonly onWarning: WarningSink;
  readonly journal: ChangeJournal | undefined;
  readonly data: GuestData;
  readonly old: OldContents;
  readonly compressed: CompressedReader;
  /** How clusters of this image are compressed. Rejects with `UNSUPPORTED_COMPRESSION`. */
  readonly codec: () => Promise<ClusterCodec>;
  readonly map: GuestMap;
  readonly owners: MetadataOwners;
  readonly refcounts: Refcounts;
  readonly allocator: ClusterAllocator;
  readonly tables: L2Tables;
  readonly reservations = new Reservations();
  readonly requests = new DataRequests();
  /** Discards and writes of zeros that are under way: where they end may be where the disk ends. */
  readonly erasures = new DataRequests();
  readonly frees = new DeferredFrees();
  readonly padding = new Padding();
  readonly latePadding: LatePadding;
  readonly writeBack: WriteBack;
  /** Virtual size in bytes. */
  size: number;
  /** Where a disk ends that may end inside a cluster, of which nobody has the rest. While it gets larger it ends nowhere. */
  end: number;
  /** Why the image takes no writes any more. */
  refusal: ZcowError | undefined;

  constructor(input: ImageStateInput) {
    const { storage, geometry } = input;
    this.storage = storage;
    this.geometry = geometry;
    this.size = geometry.size;
    this.end = geometry.size;
    this.writable = input.writable;
    this.onWarning = input.onWarning;
    this.journal = input.journal;
    const data = debuggedData(input.data ?? new ImageFileData(storage), storage.debug);
    this.data = data;
    this.latePadding = new LatePadding(data, geometry, input.journal);
    const { compressionType } = input.header;
    const codec = onceDone(() => loadCodec(compressionType));
    this.codec = codec;
    const compressed = new CompressedClusters({
      storage,
      geometry,
      codec,
      cacheBytes: input.cacheBytes,
    });
    this.compressed = compressed;
    this.old = new OldContents({ geometry, data, compressed, backing: input.backing, debug: storage.debug });
    const barrier = (): MaybePromise<void> => this.writeBack.barrier();
    this.header = new ImageHeader(storage, input.header, barrier);
    this.owners = new MetadataOwners(geometry);
    const sliceSize = Math.min(geometry.clusterSize, SLICE_BYTES);
    const slices = Math.floor(input.cacheBytes / sliceSize);
    const forCounts = Math.floor(slices * REFCOUNT_SHARE);
    const flush = (): MaybePromise<void> => this.writeBack.flush(true);
    const corrupt = (error: ZcowError): Promise<never> => this.corrupt(error);
    const onUnheldWrite = (): void => {
      this.writeBack.unflushedData = true;
    };
    this.map = new GuestMap(storage, geometry, input.l1, new TableCache(storage, sliceSize, slices - forCounts));
    this.refcounts = new Refcounts({
      storage,
      geometry,
      cache: new TableCache(storage, sliceSize, forCounts, "refblock_load"),
      owners: this.owners,
      flush,
      onUnheldWrite,
    });
    const { header, owners, refcounts, frees, requests, map } = this;
    this.allocator = new ClusterAllocator({
      storage,
      geometry,
      header,
      refcounts,
      owners,
      frees,
      flush,
      barrier,
      corrupt,
    });
    this.tables = new L2Tables({ storage, geometry, map, owners, frees, allocator: this.allocator, onUnheldWrite });
    this.writeBack = new WriteBack({
      storage,
      data,
      header,
      refcounts,
      l2: map.cache,
      l1: map.l1,
      frees,
      owners,
      requests,
      lazyRefcounts: () => this.hasLazyRefcounts,
      refusal: () => this.refusal,
      corrupt,
      latePadding: this.latePadding,
      changes: this.#watchChanges(),
    });
  }

  #watchChanges(): MetadataChanges | undefined {
    const { journal, refcounts, map, storage } = this;
    if (journal === undefined) return undefined;
    // Whoever flushes next learns of a failure.
    journal.onLarge = () => void Promise.resolve(this.writeBack.flush(true)).catch(() => undefined);
    journal.onFailure = (error) => this.onWarning(noJournal(storage.name, error));
    return new MetadataChanges(journal, refcounts, map.cache, map.l1);
  }

  /** Refcounts in the file may be behind: the dirty bit is set, and whoever opens the image after a crash rebuilds them. */
  get hasLazyRefcounts(): boolean {
    const { compatible, incompatible } = this.header.current.features;
    return (compatible & COMPATIBLE.lazyRefcounts) !== 0n && (incompatible & INCOMPATIBLE.dirty) !== 0n;
  }

  /** Loads what only writing needs: the refcount table, and where all metadata lies. */
  async loadForWriting(): Promise<void> {
    if (this.refcounts.table !== undefined) return;
    const { refcountTableOffset, refcountTableClusters } = this.header.current;
    const bytes = new Uint8Array(refcountTableClusters * this.geometry.clusterSize);
    this.storage.debug?.event("reftable_load");
    const wait = this.storage.read(refcountTableOffset, bytes);
    if (isPromise(wait)) await wait;
    this.#claimMetadata();
    if (this.header.current.snapshotCount > 0) {
      const { claimSnapshots } = await import("./snapshots/claim-snapshots.js");
      await claimSnapshots(this.storage, this.header.current, this.owners);
    }
    this.refcounts.adopt(new RootTable(refcountTableOffset, bytes));
    const { conflict } = this.owners;
    if (conflict !== undefined) await this.corrupt(conflict);
  }

  #claimMetadata(): void {
    const { geometry, owners, map } = this;
    owners.claim(OWNER_HEADER, 0, geometry.clusterSize);
    const { cryptHeader } = this.header.current;
    if (cryptHeader !== undefined) owners.protect("encryption header", cryptHeader.offset, cryptHeader.length);
    owners.claim(OWNER_L1, map.l1.at, map.l1.entries * TABLE_ENTRY_BYTES);
    for (let index = 0; index < map.l1.entries; index++) {
      const high = map.l1.high(index);
      const low = map.l1.low(index);
      if (l1Offset(high, low) === 0 || isL1EntryCorrupt(high, low, geometry.clusterSize)) continue;
      owners.claim(OWNER_L2, l1Offset(high, low), geometry.clusterSize);
    }
  }

  /** Marks the image corrupt and refuses writes from now on; then throws `error`. A read-only image is left alone. */
  async corrupt(error: ZcowError): Promise<never> {
    if (this.writable && this.refusal === undefined) await this.markCorrupt(error);
    throw error;
  }

  /** Refuses all later writes with `reason`, and says so in the file where the format can (version 3). */
  async markCorrupt(reason: Error): Promise<void> {
    if (this.refusal !== undefined) return;
    this.refusal = isZcowError(reason)
      ? reason
      : new ZcowError("IMAGE_CORRUPT", `${this.storage.name}: ${reason.message}`, { cause: reason });
    if (this.geometry.version === 2) return;
    try {
      await this.header.update((header) => ({
        ...header,
        features: { ...header.features, incompatible: header.features.incompatible | INCOMPATIBLE.corrupt },
      }));
    } catch (cause) {
      // The first finding matters more than the failure to record it.
      this.onWarning({
        code: "CORRUPT_BIT_NOT_SET",
        message: `${this.storage.name} could not be marked corrupt: ${cause instanceof Error ? cause.message : String(cause)}`,
      });
    }
  }

  /** Passes errors on; corruption found on the way is recorded first. */
  async fail(error: unknown): Promise<never> {
    if (isZcowError(error, "IMAGE_CORRUPT")) return this.corrupt(error);
    throw error;
  }
}

/** Makes the result of `make` at the first call and keeps it. */
function onceDone<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}
