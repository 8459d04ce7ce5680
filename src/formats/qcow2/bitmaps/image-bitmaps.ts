import { viewOf, writeU64 } from "../../../base/bytes.js";
import { ZcowError } from "../../../base/errors.js";
import { ceilDiv, isPowerOfTwo } from "../../../base/integers.js";
import { hostOffset, KiB } from "../../../base/units.js";
import type { Storage } from "../../../storage/storage.js";
import type { Qcow2Engine } from "../engine-contract.js";
import { EXTENSION, withExtension } from "../extensions.js";
import { AUTOCLEAR } from "../features.js";
import { encodeFileName } from "../file-name.js";
import type { BitmapDirectory, Qcow2Header } from "../header.js";
import { encodeBitmapsExtension } from "../header-bitmaps.js";
import { MAX_BITMAPS, TABLE_ENTRY_BYTES } from "../limits.js";
import {
  BITMAP_AUTO,
  BITMAP_IN_USE,
  type BitmapEntry,
  encodeDirectory,
  isUsable,
  MAX_BITMAP_NAME_BYTES,
  MAX_GRANULARITY_BITS,
  MIN_GRANULARITY_BITS,
} from "./bitmap-directory.js";
import { DirtyBits } from "./dirty-bits.js";
import { loadBitmaps, tableEntriesOf } from "./load-bitmaps.js";

const DIRECTORY_NAME = "bitmap directory";
/** Between these, bytes, a bit stands for a cluster unless somebody wants otherwise. */
const SMALLEST_DEFAULT_GRANULARITY = 4 * KiB;
const LARGEST_DEFAULT_GRANULARITY = 64 * KiB;

/** One bitmap, as far as others can take it over. */
export interface BitmapSummary {
  readonly name: string;
  /** Bytes for each bit. */
  readonly granularity: number;
  /** Writes are recorded. */
  readonly enabled: boolean;
  /** Undefined when its bits cannot be trusted, or not be understood. */
  readonly bits: DirtyBits | undefined;
}

/** A bitmap in use. */
interface Bitmap {
  readonly name: string;
  readonly granularityBits: number;
  readonly extra: Uint8Array;
  /** Flags without `in use`. */
  flags: number;
  /** Undefined when its bits cannot be trusted, or not be understood. */
  readonly bits: DirtyBits | undefined;
  /** Where it is stored: undefined for a new one. */
  readonly stored: { readonly entry: BitmapEntry; readonly clusters: readonly number[] } | undefined;
}

/**
 * The bitmaps of an image that is open for writing.
 *
 *     on disk                  | bitmaps are
 *     before the first write   | as they were left: consistent, or marked `in use` since a crash
 *     first write              | all marked `in use`, durable before the write begins
 *     close: new clusters      | still `in use`; new data, tables and directory are durable, nothing refers to them
 *     close: header            | the new directory, without the marks
 *     close: old clusters      | freed
 *
 * So after a crash every bitmap is marked `in use`, which everybody takes for inconsistent.
 */
export class ImageBitmaps {
  readonly #storage: Storage;
  #size: number;
  readonly #clusterSize: number;
  /** The directory as it is in the file. */
  readonly #asLoaded: readonly BitmapEntry[];
  #bitmaps: Bitmap[];
  #directory: BitmapDirectory | undefined;
  #begun = false;
  #changed = false;
  /** Clusters that nothing needs once the header names the new directory. */
  readonly #outdated: { readonly offset: number; readonly clusters: number }[] = [];

  private constructor(storage: Storage, header: Qcow2Header, bitmaps: Bitmap[]) {
    this.#storage = storage;
    this.#size = header.size;
    this.#clusterSize = 2 ** header.clusterBits;
    this.#directory = header.bitmaps;
    this.#bitmaps = bitmaps;
    this.#asLoaded = bitmaps.flatMap(({ stored }) => (stored === undefined ? [] : [stored.entry]));
  }

  /** Throws `QCOW2_BITMAPS`. */
  static async load(storage: Storage, header: Qcow2Header): Promise<ImageBitmaps> {
    const loaded = await loadBitmaps(storage, header);
    const bitmaps = loaded.map(({ entry, bits, clusters }) => ({
      name: entry.name,
      granularityBits: entry.granularityBits,
      extra: entry.extra,
      flags: entry.flags & ~BITMAP_IN_USE,
      bits,
      stored: { entry, clusters },
    }));
    return new ImageBitmaps(storage, header, bitmaps);
  }

  /** The directory as it is in the file. Throws `BITMAP_INCONSISTENT` unless the bits of all can be used. */
  storedEntries(): readonly BitmapEntry[] {
    this.requireUsable();
    return this.#asLoaded;
  }

  /** Throws `BITMAP_INCONSISTENT` unless the bits of all can be used. */
  requireUsable(): void {
    for (const { name } of this.#bitmaps) this.#usable(name);
  }

  /** What there is, in the order of the directory. */
  list(): readonly BitmapSummary[] {
    return this.#bitmaps.map(({ name, granularityBits, flags, bits }) => ({
      name,
      granularity: 2 ** granularityBits,
      enabled: (flags & BITMAP_AUTO) !== 0,
      bits,
    }));
  }

  /** The same bitmaps for the disk that `header` has now, `size` bytes large: to be stored. */
  resized(header: Qcow2Header, size: number): ImageBitmaps {
    const bitmaps = this.#bitmaps.map((bitmap) => ({ ...bitmap, bits: bitmap.bits?.resized(size) }));
    const next = new ImageBitmaps(this.#storage, header, bitmaps);
    next.#changed = true;
    return next;
  }

  /** The disk has become larger; nothing is marked in the new part. All are usable. */
  grow(size: number): void {
    for (const { bits } of this.#bitmaps) bits?.grow(size);
    this.#size = size;
  }

  // --- recording ----------------------------------------------------------------------------------

  /** A write is about to happen: recorded in every bitmap that is enabled. */
  mark(offset: number, length: number): void {
    for (const { flags, bits } of this.#bitmaps) if ((flags & BITMAP_AUTO) !== 0) bits?.mark(offset, length);
  }

  /** Marks all bitmaps `in use`, durable when it resolves: from now on a crash leaves them behind the data. */
  async begin(engine: Qcow2Engine): Promise<void> {
    if (this.#begun || this.#directory === undefined) return;
    this.#begun = true;
    const { offset, length } = this.#directory;
    engine.protectMetadata(DIRECTORY_NAME, hostOffset(offset), length);
    const entries = this.#asLoaded.map((entry) => ({ ...entry, flags: entry.flags | BITMAP_IN_USE }));
    await this.#storage.write(offset, encodeDirectory(entries));
    await engine.barrier();
  }

  // --- operations ---------------------------------------------------------------------------------

  /** Adds an empty bitmap that records writes. `granularity` in bytes: a power of two from 512 to 2 GiB. */
  add(name: string, granularity = defaultGranularity(this.#clusterSize)): void {
    requireGranularity(granularity);
    const bytes = encodeFileName(name).length;
    if (bytes === 0) throw refused("name", name, "Bitmap name cannot be empty");
    if (bytes > MAX_BITMAP_NAME_BYTES)
      throw refused(
        "name",
        name,
        `Can't make bitmap '${name}' persistent in '${this.#storage.name}': Name length exceeds maximum (${MAX_BITMAP_NAME_BYTES} characters)`,
      );
    if (this.#bitmaps.some((bitmap) => bitmap.name === name))
      throw refused("name", name, `Bitmap already exists: ${name}`);
    if (this.#bitmaps.length >= MAX_BITMAPS)
      throw refused("name", name, "Maximum number of persistent bitmaps is already reached");
    const bits = new DirtyBits(this.#size, granularity, this.#clusterSize);
    const granularityBits = Math.log2(granularity);
    const extra = new Uint8Array(0);
    this.#bitmaps.push({ name, granularityBits, extra, flags: BITMAP_AUTO, bits, stored: undefined });
    this.#changed = true;
  }

  /** Also takes away an inconsistent bitmap, with which nothing else can be done. */
  remove(name: string): void {
    const bitmap = this.#find(name);
    this.#bitmaps = this.#bitmaps.filter((other) => other !== bitmap);
    this.#discard(bitmap);
    this.#changed = true;
  }

  clear(name: string): void {
    this.#usable(name).clear();
  }

  /** Writes are recorded from now on, or not any more. */
  setEnabled(name: string, enabled: boolean): void {
    this.#usable(name);
    const bitmap = this.#find(name);
    bitmap.flags = enabled ? bitmap.flags | BITMAP_AUTO : bitmap.flags & ~BITMAP_AUTO;
    this.#changed = true;
  }

  /** Marks in `name` what is marked in `source`, a bitmap of this disk or of another of the same size. */
  merge(name: string, source: DirtyBits): void {
    const target = this.#usable(name);
    if (target.size !== source.size) {
      const text = `Bitmaps are of different sizes (destination size is ${target.size}, source size is ${source.size}) and can't be merged`;
      throw refused("size", source.size, text);
    }
    target.merge(source);
  }

  /** The bits of a bitmap that can be used; `BITMAP_NOT_FOUND`, `BITMAP_INCONSISTENT`. */
  bits(name: string): DirtyBits {
    return this.#usable(name);
  }

  #find(name: string): Bitmap {
    const bitmap = this.#bitmaps.find((candidate) => candidate.name === name);
    if (bitmap !== undefined) return bitmap;
    throw new ZcowError("BITMAP_NOT_FOUND", `${this.#storage.name} has no bitmap '${name}'`, {
      data: { path: this.#storage.name, value: name },
      stockText: `Dirty bitmap '${name}' not found`,
    });
  }

  #usable(name: string): DirtyBits {
    const { bits } = this.#find(name);
    if (bits !== undefined) return bits;
    throw new ZcowError(
      "BITMAP_INCONSISTENT",
      `Bitmap '${name}' of ${this.#storage.name} is inconsistent: the image was not closed while the bitmap was in use. It can be removed only`,
      {
        data: { path: this.#storage.name, value: name },
        stockText: `Bitmap '${name}' is inconsistent and cannot be used\nTry block-dirty-bitmap-remove to delete this bitmap from disk`,
      },
    );
  }

  // --- storing ------------------------------------------------------------------------------------

  /** Stores what changed and takes the marks away. Everything else of the image is durable already. */
  async finish(engine: Qcow2Engine): Promise<void> {
    if (!this.#begun && !this.#changed && this.#bitmaps.every(({ bits }) => bits?.changed !== true)) return;
    await engine.prepareForWriting();
    const old = this.#directory;
    const entries: BitmapEntry[] = [];
    for (const bitmap of this.#bitmaps) entries.push(await this.#store(engine, bitmap));
    const directory = await this.#storeDirectory(engine, entries);
    await engine.flush();
    await engine.updateHeader((header) => withBitmaps(header, directory));
    engine.unprotectMetadata(DIRECTORY_NAME);
    if (old !== undefined)
      this.#outdated.push({ offset: old.offset, clusters: ceilDiv(old.length, this.#clusterSize) });
    for (const { offset, clusters } of this.#outdated) await engine.freeClusters(hostOffset(offset), clusters);
    await engine.flush();
  }

  async #store(engine: Qcow2Engine, bitmap: Bitmap): Promise<BitmapEntry> {
    const { name, granularityBits, extra, flags, bits, stored } = bitmap;
    if (stored !== undefined && bits === undefined) {
      // Nobody kept it: once in use it stays so; what needs extra data was kept if nothing was written.
      const inUse = !isUsable(stored.entry) && !this.#begun ? 0 : BITMAP_IN_USE;
      return { ...stored.entry, flags: stored.entry.flags | inUse };
    }
    if (bits === undefined) throw new Error("a new bitmap has bits");
    if (stored !== undefined && !bits.changed) return { ...stored.entry, flags };
    const table = await this.#storeBits(engine, bits);
    const length = ceilDiv(table.length, this.#clusterSize);
    const tableOffset = await engine.allocateClusters(Math.max(1, length));
    await this.#storage.write(tableOffset, table);
    this.#discard(bitmap);
    return { tableOffset, tableEntries: table.length / TABLE_ENTRY_BYTES, flags, granularityBits, name, extra };
  }

  /** Writes the bits to new clusters; returns the table. */
  async #storeBits(engine: Qcow2Engine, bits: DirtyBits): Promise<Uint8Array> {
    const entries = tableEntriesOf(bits.size, Math.log2(bits.granularity), this.#clusterSize);
    const table = new Uint8Array(Math.max(1, entries) * TABLE_ENTRY_BYTES);
    for (let index = 0; index < entries; index++) {
      const chunk = bits.chunk(index);
      if (chunk === "ones") viewOf(table).setUint32(index * TABLE_ENTRY_BYTES + 4, 1);
      if (chunk === undefined || chunk === "ones" || chunk.every((byte) => byte === 0)) continue;
      const offset = await engine.allocateClusters(1);
      await this.#storage.write(offset, chunk);
      writeU64(viewOf(table), index * TABLE_ENTRY_BYTES, offset);
    }
    return table;
  }

  async #storeDirectory(engine: Qcow2Engine, entries: readonly BitmapEntry[]): Promise<BitmapDirectory | undefined> {
    if (entries.length === 0) return undefined;
    const bytes = encodeDirectory(entries);
    const offset = await engine.allocateClusters(ceilDiv(bytes.length, this.#clusterSize));
    await this.#storage.write(offset, bytes);
    return { count: entries.length, offset, length: bytes.length };
  }

  #discard({ stored }: Bitmap): void {
    if (stored === undefined) return;
    const { tableOffset, tableEntries } = stored.entry;
    this.#outdated.push({
      offset: tableOffset,
      clusters: ceilDiv(tableEntries * TABLE_ENTRY_BYTES, this.#clusterSize),
    });
    for (const offset of stored.clusters) this.#outdated.push({ offset, clusters: 1 });
  }
}

function withBitmaps(header: Qcow2Header, bitmaps: BitmapDirectory | undefined): Qcow2Header {
  const others = header.features.autoclear & ~AUTOCLEAR.bitmaps;
  const autoclear = bitmaps === undefined ? others : others | AUTOCLEAR.bitmaps;
  const data = bitmaps === undefined ? undefined : encodeBitmapsExtension(bitmaps);
  const extensions = withExtension(header.extensions, EXTENSION.bitmaps, data);
  return { ...header, bitmaps, extensions, features: { ...header.features, autoclear } };
}

function refused(field: string, value: string | number, text: string): ZcowError {
  return new ZcowError("BITMAP_REFUSED", text, { data: { structure: "bitmap", field, value }, stockText: text });
}

/** Fails with `BITMAP_REFUSED` for what is no power of two from 512 to 2 GiB. */
export function requireGranularity(granularity: number): void {
  const isInRange = granularity >= 2 ** MIN_GRANULARITY_BITS && granularity <= 2 ** MAX_GRANULARITY_BITS;
  if (isPowerOfTwo(granularity) && isInRange) return;
  throw refused("granularity", granularity, "Granularity must be power of 2 and at least 512");
}

function defaultGranularity(clusterSize: number): number {
  return Math.min(Math.max(clusterSize, SMALLEST_DEFAULT_GRANULARITY), LARGEST_DEFAULT_GRANULARITY);
}
