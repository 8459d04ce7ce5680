import { viewOf } from "../../base/bytes.js";
import { ZcowError } from "../../base/errors.js";
import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { MiB, SECTOR_SIZE } from "../../base/units.js";
import { inflateZlib } from "../../codec/inflate-zlib.js";
import type { Storage } from "../../storage/storage.js";
import type { StoredRun } from "../stored-disk.js";
import { type EqualEntries, TablePages } from "../table-pages.js";
import type { SparseHeader } from "./sparse-header.js";

/** Before a compressed grain: its first sector on the disk (64 bits), and its length in bytes (32 bits). */
const MARKER_BYTES = 12;
/** Memory for grains that were unpacked. */
const CACHE_BYTES = 16 * MiB;

/** A hosted sparse extent: a directory of tables of grains. */
export class SparseExtent {
  readonly storage: Storage;
  readonly header: SparseHeader;
  readonly #tables: TablePages;
  /** Grains unpacked or being unpacked, by file offset, least recently used first. */
  readonly #grains = new Map<number, Promise<Uint8Array>>();

  constructor(storage: Storage, header: SparseHeader) {
    this.storage = storage;
    this.header = header;
    this.#tables = new TablePages(storage);
  }

  /** The run at byte `offset` of the extent, to the end of its grain at most. */
  locate(offset: number): MaybePromise<StoredRun> {
    const { grainSize, tableEntries, directoryOffset } = this.header;
    const grain = Math.floor(offset / grainSize);
    const index = Math.floor(grain / tableEntries);
    const table = this.#tables.u32(directoryOffset + index * 4, true);
    return isPromise(table)
      ? table.then((found) => this.#inTable(found, grain, offset))
      : this.#inTable(table, grain, offset);
  }

  #inTable({ value: tableSector, count }: EqualEntries, grain: number, offset: number): MaybePromise<StoredRun> {
    const { grainSize, tableEntries } = this.header;
    const inTable = grain % tableEntries;
    if (tableSector === 0) {
      // No table: nothing is stored up to the end of what it would cover.
      const past = (Math.floor(grain / tableEntries) + count) * tableEntries * grainSize;
      return { kind: "zero", length: past - offset, allocated: false };
    }
    const inside = offset - grain * grainSize;
    const entry = this.#tables.u32(tableSector * SECTOR_SIZE + inTable * 4, true, tableEntries - inTable);
    return isPromise(entry) ? entry.then((found) => this.#run(found, grain, inside)) : this.#run(entry, grain, inside);
  }

  #run({ value: sector, count }: EqualEntries, grain: number, inside: number): StoredRun {
    const { grainSize, zeroGrains, compressed } = this.header;
    const empty = count * grainSize - inside;
    if (sector === 0) return { kind: "zero", length: empty, allocated: false };
    if (sector === 1 && zeroGrains) return { kind: "zero", length: empty, allocated: true };
    const length = grainSize - inside;
    const at = sector * SECTOR_SIZE;
    if (!compressed) return { kind: "data", length, storage: this.storage, at: at + inside, flat: false };
    return { kind: "packed", length, skip: inside, unpack: () => this.#grain(at, grain) };
  }

  #grain(at: number, grain: number): Promise<Uint8Array> {
    const known = this.#grains.get(at);
    if (known !== undefined) {
      this.#grains.delete(at);
      this.#grains.set(at, known);
      return known;
    }
    const unpacking = this.#unpack(at, grain);
    this.#grains.set(at, unpacking);
    // What failed is tried anew by the next reader.
    unpacking.catch(() => this.#grains.delete(at));
    if (this.#grains.size > CACHE_BYTES / this.header.grainSize) {
      for (const oldest of this.#grains.keys()) {
        this.#grains.delete(oldest);
        break;
      }
    }
    return unpacking;
  }

  async #unpack(at: number, grain: number): Promise<Uint8Array> {
    const { grainSize, markers } = this.header;
    // A grain that does not shrink grows by a few bytes per block; twice its size is more than any maker needs.
    const packed = new Uint8Array(2 * grainSize + MARKER_BYTES);
    await this.storage.read(at, packed);
    let stream = packed;
    if (markers) {
      const view = viewOf(packed);
      const length = view.getUint32(8, true);
      if (length === 0 || length > 2 * grainSize) throw this.#damaged(grain, at, `its marker gives it ${length} bytes`);
      stream = packed.subarray(MARKER_BYTES, MARKER_BYTES + length);
    }
    let bytes: Uint8Array;
    try {
      bytes = await inflateZlib(stream, grainSize);
    } catch (cause) {
      throw this.#damaged(grain, at, "it does not unpack", cause);
    }
    return bytes.length === grainSize ? bytes : padded(bytes, grainSize);
  }

  #damaged(grain: number, at: number, problem: string, cause?: unknown): ZcowError {
    return new ZcowError("FORMAT_BLOCK", `${this.storage.name}: grain ${grain}, at file offset ${at}: ${problem}`, {
      data: { path: this.storage.name, structure: "grain", field: `grain ${grain}`, offset: at },
      cause,
    });
  }
}

/** The last grain of a disk may be short. */
function padded(bytes: Uint8Array, length: number): Uint8Array {
  const whole = new Uint8Array(length);
  whole.set(bytes);
  return whole;
}
