import { viewOf } from "../../../base/bytes.js";
import { ZcowError } from "../../../base/errors.js";
import { ceilDiv } from "../../../base/integers.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { MiB } from "../../../base/units.js";
import type { Storage } from "../../../storage/storage.js";
import type { Qcow2Header } from "../header.js";
import { TABLE_ENTRY_BYTES } from "../limits.js";
import { BITMAP_IN_USE, type BitmapEntry, decodeDirectory, isUsable } from "./bitmap-directory.js";
import { DirtyBits } from "./dirty-bits.js";

/** Bytes of bits held in memory over all bitmaps: thirty bitmaps of a disk of 2 TiB in pieces of 64 KiB. */
const MAX_BITMAP_DATA_BYTES = 128 * MiB;
/** Bytes of all bitmap tables together. */
const MAX_BITMAP_TABLE_BYTES = 16 * MiB;

const ENTRY_RESERVED = 0xff00_0000_0000_01fen;
const ENTRY_OFFSET = 0x00ff_ffff_ffff_fe00n;

/** A bitmap of an image: its entry, where it is stored, and its bits as far as they can be used. */
export interface StoredBitmap {
  readonly entry: BitmapEntry;
  /** Undefined when the bitmap is inconsistent, or needs extra data to be understood. */
  readonly bits: DirtyBits | undefined;
  /** File offsets of the clusters with bits. */
  readonly clusters: readonly number[];
}

/** The entries of the bitmap directory. Throws `QCOW2_BITMAPS`. */
export async function readDirectory(storage: Storage, header: Qcow2Header): Promise<BitmapEntry[]> {
  if (header.bitmaps === undefined) return [];
  const { offset, length, count } = header.bitmaps;
  if (offset + length > storage.size()) throw pastEnd(storage, "bitmap directory", offset + length);
  const bytes = new Uint8Array(length);
  await fill(storage, offset, bytes);
  return decodeDirectory(bytes, count, 2 ** header.clusterBits);
}

/** All bitmaps with their bits. Throws `QCOW2_BITMAPS`, also when they would take more memory than bitmaps of a sound image do. */
export async function loadBitmaps(storage: Storage, header: Qcow2Header): Promise<StoredBitmap[]> {
  const loader = new Loader(storage, header);
  const bitmaps: StoredBitmap[] = [];
  for (const entry of await readDirectory(storage, header)) bitmaps.push(await loader.load(entry));
  return bitmaps;
}

class Loader {
  readonly #storage: Storage;
  readonly #size: number;
  readonly #clusterSize: number;
  #dataBytes = 0;
  #tableBytes = 0;

  constructor(storage: Storage, header: Qcow2Header) {
    this.#storage = storage;
    this.#size = header.size;
    this.#clusterSize = 2 ** header.clusterBits;
  }

  async load(entry: BitmapEntry): Promise<StoredBitmap> {
    const table = await this.#readTable(entry);
    const usable = (entry.flags & BITMAP_IN_USE) === 0 && isUsable(entry);
    const granularity = 2 ** entry.granularityBits;
    const bits = usable ? new DirtyBits(this.#size, granularity, this.#clusterSize) : undefined;
    if (bits !== undefined && bits.chunkCount !== entry.tableEntries) {
      throw fault(entry, "bitmap_table_size", entry.tableEntries, bits.chunkCount, "the table does not fit the disk");
    }
    const clusters: number[] = [];
    for (let index = 0; index < entry.tableEntries; index++) {
      const offset = this.#entryOffset(entry, table, index);
      if (offset === 0) {
        if ((table.getUint32(index * TABLE_ENTRY_BYTES + 4) & 1) === 1) bits?.putChunk(index, "ones");
        continue;
      }
      clusters.push(offset);
      bits?.putChunk(index, await this.#readChunk(entry, offset));
    }
    return { entry, bits, clusters };
  }

  async #readTable(entry: BitmapEntry): Promise<DataView> {
    const length = entry.tableEntries * TABLE_ENTRY_BYTES;
    this.#tableBytes += length;
    if (this.#tableBytes > MAX_BITMAP_TABLE_BYTES) {
      throw fault(
        entry,
        "bitmap_table_size",
        this.#tableBytes,
        MAX_BITMAP_TABLE_BYTES,
        "the tables are too large together",
      );
    }
    if (entry.tableOffset + length > this.#storage.size()) {
      throw pastEnd(this.#storage, `table of bitmap '${entry.name}'`, entry.tableOffset + length);
    }
    const bytes = new Uint8Array(length);
    await fill(this.#storage, entry.tableOffset, bytes);
    return viewOf(bytes);
  }

  #entryOffset(entry: BitmapEntry, table: DataView, index: number): number {
    const value = table.getBigUint64(index * TABLE_ENTRY_BYTES);
    const offset = value & ENTRY_OFFSET;
    const aligned = offset % BigInt(this.#clusterSize) === 0n;
    if ((value & ENTRY_RESERVED) !== 0n || !aligned || (offset !== 0n && (value & 1n) !== 0n)) {
      throw fault(
        entry,
        "bitmap table",
        value,
        this.#clusterSize,
        `table entry ${index} has reserved bits or no cluster`,
      );
    }
    if (offset + BigInt(this.#clusterSize) > BigInt(this.#storage.size() + this.#clusterSize)) {
      throw fault(
        entry,
        "bitmap table",
        offset,
        this.#storage.size(),
        `table entry ${index} points past the end of the file`,
      );
    }
    return Number(offset);
  }

  async #readChunk(entry: BitmapEntry, offset: number): Promise<Uint8Array> {
    this.#dataBytes += this.#clusterSize;
    if (this.#dataBytes > MAX_BITMAP_DATA_BYTES) {
      throw fault(entry, "bitmap data", this.#dataBytes, MAX_BITMAP_DATA_BYTES, "the bitmaps are too large together");
    }
    const bytes = new Uint8Array(this.#clusterSize);
    await fill(this.#storage, offset, bytes);
    return bytes;
  }
}

/** Entries in the table of a bitmap of `size` bytes. */
export function tableEntriesOf(size: number, granularityBits: number, clusterSize: number): number {
  return ceilDiv(ceilDiv(size, 2 ** granularityBits), clusterSize * 8);
}

async function fill(storage: Storage, at: number, into: Uint8Array): Promise<void> {
  const wait = storage.read(at, into);
  if (isPromise(wait)) await wait;
}

function pastEnd(storage: Storage, structure: string, end: number): ZcowError {
  return new ZcowError("QCOW2_BITMAPS", `${storage.name}: the ${structure} ends at ${end}, past the end of the file`, {
    data: { structure, value: end, limit: storage.size(), path: storage.name },
  });
}

function fault(entry: BitmapEntry, field: string, value: number | bigint, limit: number, what: string): ZcowError {
  return new ZcowError("QCOW2_BITMAPS", `Bitmap '${entry.name}': ${what}`, {
    data: { structure: `bitmap '${entry.name}'`, field, value, limit },
  });
}
