import { isZcowError, ZcowError } from "../../base/errors.js";
import { alignUp } from "../../base/integers.js";
import { type MaybePromise, whenAll } from "../../base/maybe-promise.js";
import { type HostOffset, SECTOR_SIZE } from "../../base/units.js";
import type { BlockExtent, DiskFiller, DiskPart, StorePlaces } from "../../block/block-device.js";
import type { ChangeJournal } from "../../storage/change-journal.js";
import type { Storage } from "../../storage/storage.js";
import { writeAllocatingNow } from "./allocating-now.js";
import { writeAllocating } from "./allocating-write.js";
import { backedExtents } from "./backed-extents.js";
import type { ImageBitmaps } from "./bitmaps/image-bitmaps.js";
import { assertCompressible, storeCompressed, writeCompressed } from "./compressed-write.js";
import type { DiscardMode, Qcow2Engine } from "./engine-contract.js";
import { imageExtents } from "./extents.js";
import { AUTOCLEAR, autoclearBitsToClear, COMPATIBLE, INCOMPATIBLE } from "./features.js";
import { fill } from "./filling.js";
import type { Qcow2Geometry } from "./geometry.js";
import type { Qcow2Header } from "./header.js";
import { ImageState, type ImageStateInput } from "./image-state.js";
import type { LatePadding } from "./late-padding.js";
import { GuestMap } from "./mapping.js";
import { Reclaimer } from "./reclaim.js";
import { RunReader } from "./run-reader.js";
import { noJournal, sessionOf, withNextSession, withSession } from "./session.js";
import { SparseData } from "./sparse-data.js";
import { discard, writeZeroes } from "./zeroing.js";

/**
 * The qcow2 engine: guest bytes to host clusters, and the order in which things reach the file.
 *
 * Invariants. "Durable" means written before a storage flush that succeeded.
 *
 * R1  A host cluster is counted (refcount >= 1) before anything refers to it: in memory by the order of changes, in the file
 *     because refcount blocks are durable before refcount table entries, those before L2 tables, those before L1
 *     entries. With lazy refcounts the durable dirty bit stands in for the first two.
 * R2  Guest data, with the zeros or old bytes around it, is durable before the L2 entry that points at it is written: data that
 *     is not in the image file is flushed first (guest-data.ts).
 * R3  A new table or block is complete in the file, and durable, before the entry above it is written.
 * R4  A cluster that lost its mapping keeps its count until that loss is durable and every request that may still work on
 *     it is over; then the hole is punched, then the count goes down, then it can be handed out (deferred-frees.ts, reclaim.ts).
 *     Compressed clusters share host clusters, and each counts. No compressed data joins a host cluster that is being given back.
 * R5  L2 tables, refcount blocks, L1 and refcount table entries are written by WriteBack only, as they were at one moment. Nothing
 *     is clean until the barrier after its write; a failed step leaves everything dirty for the next flush.
 * R6  No write goes to a cluster that another structure owns (overlap.ts). A violation, or an entry that breaks the format's
 *     rules, marks the image corrupt and ends writing.
 * R7  Guest clusters under an allocating write are reserved (in-flight.ts): their mapping is changed by nobody else. There is no
 *     lock around data, and none across clusters but the one that hands out host clusters.
 * R8  After a storage flush failed with guest data outstanding, no flush reports success any more.
 *
 * What a crash can leave in the file, step by step:
 *
 *     allocating write    | on disk after a crash in this step     | effect
 *     count raised        | old or new count                       | leak at most
 *     data written        | old mapping, some new data             | leak; old contents (zeros) are read
 *     L2 entry in memory  | as above                               | as above
 *     flush: counts       | some counts new                        | leak
 *     flush: barrier      | counts and data durable                | leak
 *     flush: L2 written   | some entries new                       | each reads old or new contents, both counted
 *     flush: barrier      | done                                   |
 *
 *     new L2 table        | zeroed cluster, counted, unreferenced  | leak
 *     flush: L1 written   | entry old or new; table durable        | leak, or table in use
 *
 *     discard             | old mapping, data intact               | nothing happened
 *     flush: L2 written   | some entries gone; counts unchanged    | leak
 *     punch, count lower  | hole in unmapped clusters; count old   | leak
 *
 *     larger refcount     | new blocks and table written           | nothing refers to them
 *     table               | header old or new, both tables durable | old table or new table, equal for all older clusters
 */
export class ClusterEngine implements Qcow2Engine {
  readonly storage: Storage;
  readonly geometry: Qcow2Geometry;
  readonly writable: boolean;
  /** The bitmaps that every write is recorded in. */
  readonly bitmaps: ImageBitmaps | undefined;
  readonly #state: ImageState;
  readonly #map: GuestMap;
  readonly #reader: RunReader;
  readonly #reclaimer: Reclaimer;
  readonly #sparse: SparseData;
  readonly #late: LatePadding;
  /** Where guest data is read and written without a detour, when it needs no treatment. */
  readonly #direct: Storage | undefined;
  /** Clusters have subclusters with a state of their own. */
  readonly #isExtended: boolean;
  readonly #inImage: boolean;
  readonly #clusterSize: number;
  readonly #inverseClusterSize: number;
  readonly #lowMask: number;
  #prepared = false;
  #preparing: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  constructor(input: ImageStateInput) {
    this.#state = new ImageState(input);
    this.#map = this.#state.map;
    this.#reader = new RunReader(this.#state);
    this.#reclaimer = new Reclaimer(this.#state);
    this.#sparse = new SparseData(this.#state);
    this.#late = this.#state.latePadding;
    this.storage = input.storage;
    this.geometry = input.geometry;
    this.writable = input.writable;
    this.bitmaps = input.bitmaps;
    this.#direct = this.#state.data.direct;
    this.#isExtended = input.geometry.subclusters > 1;
    this.#inImage = this.#state.data.inImage;
    this.#clusterSize = input.geometry.clusterSize;
    this.#inverseClusterSize = 1 / input.geometry.clusterSize;
    this.#lowMask = input.geometry.clusterSize - 1;
  }

  get header(): Qcow2Header {
    return this.#state.header.current;
  }

  /** Bytes of the backing image; 0 without one. */
  get backingSize(): number {
    return this.#state.old.backing?.size ?? 0;
  }

  get journal(): ChangeJournal | undefined {
    return this.#state.journal;
  }

  // --- reading ------------------------------------------------------------------------------------

  read(offset: number, into: Uint8Array): MaybePromise<void> {
    const cluster = Math.floor(offset * this.#inverseClusterSize);
    const inside = offset - cluster * this.#clusterSize;
    if (inside + into.length <= this.#clusterSize) {
      const slice = this.#map.peek(cluster);
      if (slice !== undefined) {
        const entry = this.#map.entryAt(cluster);
        const host = GuestMap.dataOffset(slice.view, entry, this.#lowMask);
        const isStored =
          host > 0 && (!this.#isExtended || this.#map.isAllStored(slice.view, entry, inside, into.length));
        if (isStored && this.#isPlaced(host + inside, offset)) {
          const direct = this.#direct;
          const wait =
            direct === undefined
              ? this.#state.data.read(host + inside, offset, into)
              : direct.read(host + inside, into);
          return wait === undefined ? undefined : this.#state.requests.follow(wait);
        }
      }
    }
    return this.#reader.read(offset, into);
  }

  // --- writing ------------------------------------------------------------------------------------

  write(offset: number, from: Uint8Array): MaybePromise<void> {
    if (!this.#prepared || this.#state.refusal !== undefined) return this.#writeLater(offset, from);
    this.bitmaps?.mark(offset, from.length);
    const cluster = Math.floor(offset * this.#inverseClusterSize);
    const inside = offset - cluster * this.#clusterSize;
    if (inside + from.length <= this.#clusterSize) {
      const slice = this.#map.peek(cluster);
      if (slice !== undefined) {
        const entry = this.#map.entryAt(cluster);
        const host = GuestMap.writableDataOffset(slice.view, entry, this.#lowMask);
        const isStored =
          host > 0 && (!this.#isExtended || this.#map.isAllStored(slice.view, entry, inside, from.length));
        if (isStored && this.#isGuestData(host) && this.#isPlaced(host + inside, offset))
          return this.#writeInPlace(host + inside, offset, from);
      }
    }
    const now = writeAllocatingNow(this.#state, offset, from);
    if (now === undefined) return undefined;
    if (now === false) return this.#writeLater(offset, from);
    return now.catch((error: unknown) => {
      // The long way flushes for freed space and tries again.
      if (isZcowError(error, "NO_SPACE")) return this.#writeLater(offset, from);
      return this.#state.fail(error);
    });
  }

  /** In an external data file every byte has its guest offset. */
  #isPlaced(host: number, guest: number): boolean {
    return this.#inImage || host === guest;
  }

  /** The host cluster at `host` is not one of metadata. */
  #isGuestData(host: number): boolean {
    return this.#state.owners.ownerOf(host * this.#inverseClusterSize) === 0 || !this.#inImage;
  }

  #writeInPlace(host: number, guest: number, from: Uint8Array): MaybePromise<void> {
    const direct = this.#direct;
    const wait = direct === undefined ? this.#state.data.write(host, guest, from) : direct.write(host, from);
    const filled = this.#late.isEmpty ? undefined : this.#late.wrote(guest, from.length);
    if (wait === undefined) {
      this.#state.writeBack.unflushedData = true;
      return filled;
    }
    const tracked = wait.then(
      () => {
        this.#state.writeBack.unflushedData = true;
        return filled;
      },
      (error: unknown) => {
        this.#late.failed(guest, from.length, host);
        throw error;
      },
    );
    return this.#state.requests.follow(tracked);
  }

  async #writeLater(offset: number, from: Uint8Array): Promise<void> {
    await this.prepareForWriting();
    this.bitmaps?.mark(offset, from.length);
    return this.#withRoom(() => writeAllocating(this.#state, offset, from));
  }

  get filler(): DiskFiller | undefined {
    const isPlain = this.#direct !== undefined && this.#inImage && !this.#isExtended;
    if (!isPlain || !this.writable || this.#state.old.backing !== undefined) return undefined;
    if (this.storage.descriptor === undefined) return undefined;
    return { fillParts: (parts, store, turn) => this.#fill(parts, store, turn) };
  }

  async #fill(parts: readonly DiskPart[], store: StorePlaces, turn?: Promise<void>): Promise<boolean> {
    await this.prepareForWriting();
    for (const { offset, length } of parts) this.bitmaps?.mark(offset, length);
    try {
      return await fill(this.#state, parts, store, turn);
    } catch (error) {
      if (isZcowError(error, "NO_SPACE")) return false;
      return this.#state.fail(error);
    }
  }

  assertCompressible(offset: number, length: number): void {
    assertCompressible(this.#state, offset, length);
  }

  async writeCompressed(offset: number, from: Uint8Array, replace: boolean): Promise<void> {
    await this.prepareForWriting();
    this.bitmaps?.mark(offset, from.length);
    return writeCompressed(this.#state, offset, from, {
      plain: (at, data) => this.write(at, data),
      compressed: (cluster, bytes) => this.#withRoom(() => storeCompressed(this.#state, cluster, bytes, replace)),
    });
  }

  async writeZeroes(offset: number, length: number, unmap: boolean): Promise<void> {
    await this.prepareForWriting();
    this.bitmaps?.mark(offset, length);
    const write = (at: number, data: Uint8Array): MaybePromise<void> => this.write(at, data);
    const change = this.#withRoom(() => writeZeroes(this.#state, offset, length, unmap, write));
    await this.#state.erasures.follow(change);
  }

  async discard(offset: number, length: number, mode: DiscardMode): Promise<void> {
    await this.prepareForWriting();
    this.bitmaps?.mark(offset, length);
    const erasure = mode === "hint" ? "discard-hint" : mode;
    await this.#state.erasures.follow(this.#withRoom(() => discard(this.#state, offset, length, erasure)));
  }

  async grow(size: number): Promise<void> {
    const { growDisk, requireGrowable } = await import("./growing.js");
    requireGrowable(this.#state, this.bitmaps, size);
    await this.prepareForWriting();
    await this.#withRoom(() => growDisk(this.#state, this.bitmaps, size));
  }

  /** When the storage is full but freed clusters wait for a flush, flushes and tries once more. */
  async #withRoom(change: () => Promise<void>): Promise<void> {
    const { frees, writeBack } = this.#state;
    try {
      await change();
    } catch (error) {
      if (!isZcowError(error, "NO_SPACE") || !(frees.isWaiting || frees.hasGone)) return this.#state.fail(error);
      await writeBack.flush(true);
      await this.#reclaimer.run();
      await change().catch((again: unknown) => this.#state.fail(again));
    }
    if (frees.isOverdue) await writeBack.flush(true);
    // Left by a write-back that made room in a cache, too.
    if (frees.hasGone) await this.#reclaim();
  }

  prepareForWriting(): MaybePromise<void> {
    const { refusal } = this.#state;
    if (refusal !== undefined) throw refusal;
    if (this.#prepared) return undefined;
    this.#preparing ??= this.#prepare().finally(() => {
      this.#preparing = undefined;
    });
    return this.#preparing;
  }

  async #prepare(): Promise<void> {
    await this.#state.loadForWriting();
    const { features } = this.header;
    // The first step: after it, a crash leaves bitmaps that say that they may be behind.
    await this.bitmaps?.begin(this);
    const kept = this.bitmaps === undefined ? 0n : AUTOCLEAR.bitmaps;
    const stale = autoclearBitsToClear(features) & ~kept;
    const lazy = (features.compatible & COMPATIBLE.lazyRefcounts) !== 0n;
    const incompatible = lazy ? features.incompatible | INCOMPATIBLE.dirty : features.incompatible;
    const session = this.#beginJournal();
    if (stale !== 0n || incompatible !== features.incompatible || session !== undefined) {
      await this.updateHeader((header) => {
        const marked = withNextSession(header, session);
        const autoclear = (features.autoclear & ~stale) | (marked.features.autoclear & AUTOCLEAR.session);
        return { ...marked, features: { ...features, incompatible, autoclear } };
      });
    }
    this.#prepared = true;
  }

  /** The session whose journal goes with the image from now on; undefined when none is kept. */
  #beginJournal(): Uint8Array | undefined {
    const { journal, onWarning, data } = this.#state;
    if (journal === undefined) return undefined;
    try {
      if (this.header.version === 2 || !data.inImage) {
        const kind = data.inImage ? "of version 2" : "with an external data file";
        throw new ZcowError("NOT_SUPPORTED", `no journal can be kept of an image ${kind}`);
      }
      return journal.begin();
    } catch (cause) {
      onWarning(noJournal(this.storage.name, cause));
      return undefined;
    }
  }

  flush(): MaybePromise<void> {
    if (!this.writable) return undefined;
    this.storage.debug?.event("flush_to_os");
    const wait = this.#state.writeBack.flush(false);
    if (wait === undefined && !this.#state.frees.hasGone) return undefined;
    return this.#reclaimAfter(wait);
  }

  allowLatePadding(from: number): void {
    this.#late.allow(from);
  }

  barrier(): MaybePromise<void> {
    return this.#state.writeBack.barrier();
  }

  async #reclaimAfter(flushed: MaybePromise<void>): Promise<void> {
    await flushed;
    await this.#reclaim();
  }

  /** Gives space back; in the background when that has to wait for requests in flight, which the caller need not. */
  #reclaim(): MaybePromise<void> {
    const reclaimed = this.#reclaimer.run();
    return this.#state.requests.isEmpty ? reclaimed : undefined;
  }

  // --- the rest -----------------------------------------------------------------------------------

  async *extents(offset: number, length: number): AsyncGenerator<BlockExtent> {
    try {
      for await (const extent of imageExtents(this.#state, offset, length)) {
        if (extent.kind !== "unallocated" || extent.zero) yield* this.#sparse.split(extent);
        else yield* backedExtents(this.#state.old, extent);
      }
    } catch (error) {
      await this.#state.fail(error);
    }
  }

  async allocateClusters(count: number): Promise<HostOffset> {
    await this.prepareForWriting();
    try {
      return (await this.#state.allocator.allocate(count, true)).offset;
    } catch (error) {
      return this.#state.fail(error);
    }
  }

  async freeClusters(offset: HostOffset, count: number): Promise<void> {
    await this.prepareForWriting();
    this.#state.frees.add(offset, count * this.#clusterSize);
  }

  protectMetadata(structure: string, offset: HostOffset, length: number): void {
    this.#state.owners.protect(structure, offset, length);
  }

  unprotectMetadata(structure: string): void {
    this.#state.owners.unprotect(structure);
  }

  updateHeader(change: (header: Qcow2Header) => Qcow2Header): Promise<void> {
    return this.#state.header.update(change);
  }

  markCorrupt(reason: Error): Promise<void> {
    return this.#state.markCorrupt(reason);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    try {
      await this.#state.reservations.drained();
      await this.#state.requests.settled();
      if (this.writable && this.#state.refusal === undefined) await this.#leaveClean();
    } finally {
      await this.#closeFiles();
    }
  }

  /** All of them, whichever fails. */
  async #closeFiles(): Promise<void> {
    await whenAll([this.storage.close(), this.closeReferenced()]);
  }

  /** Closes the data file and the backing image, and leaves the image file open: for an image that is not used after all. */
  async closeReferenced(): Promise<void> {
    await whenAll([this.#state.data.close(), this.#state.old.backing?.close()]);
  }

  /** Everything durable, space given back, dirty bit clear. */
  async #leaveClean(): Promise<void> {
    const { writeBack, header } = this.#state;
    await this.bitmaps?.finish(this);
    if (writeBack.isDirty || writeBack.unflushedData) await writeBack.flush(true);
    // What is given back changes refcounts once more.
    await this.#reclaimer.run();
    if (writeBack.isDirty) await writeBack.flush(true);
    if (this.#prepared) await this.#endOnSector();
    const isDirty = (header.current.features.incompatible & INCOMPATIBLE.dirty) !== 0n;
    if (!this.#prepared || !(isDirty || sessionOf(header.current) !== undefined)) return;
    await header.update((current) => {
      const features = { ...current.features, incompatible: current.features.incompatible & ~INCOMPATIBLE.dirty };
      return withSession({ ...current, features }, undefined);
    });
    this.#state.journal?.end();
  }

  /**
   * Compressed data ends at any byte; programs that bypass the page cache want whole sectors. What the file was made longer for and did not
   * need is cut off. Nothing else is at work any more.
   */
  async #endOnSector(): Promise<void> {
    const { unusedFrom = Number.POSITIVE_INFINITY } = this.#state.allocator;
    const end = Math.min(unusedFrom, alignUp(this.storage.size(), SECTOR_SIZE));
    if (end !== this.storage.size() && this.storage.capabilities.resizable) await this.storage.truncate(end);
  }
}
