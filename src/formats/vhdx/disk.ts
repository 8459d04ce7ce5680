import { ZcowError } from "../../base/errors.js";
import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { MiB } from "../../base/units.js";
import type { Storage } from "../../storage/storage.js";
import type { StoredDisk, StoredRun } from "../stored-disk.js";
import { type EqualWideEntries, TablePages } from "../table-pages.js";
import { readLog } from "./log.js";
import { PatchedStorage } from "./patched-storage.js";
import { type Region, readMetadata, readRegions, readVhdxHeader, type VhdxMetadata } from "./structures.js";

const TWO_32 = 0x1_0000_0000;
/** Payload block states (MS-VHDX 2.5.1.1). */
const BLOCK_ZERO = 2;
const BLOCK_FULLY_PRESENT = 6;
const BLOCK_PARTIALLY_PRESENT = 7;
/** Blocks without data that are passed over at once. */
const MOST_EQUAL_BLOCKS = 512;
/** Sectors that one sector bitmap block, 1 MiB, tells about. */
const SECTORS_PER_BITMAP = 2 ** 23;

/** A Hyper-V virtual disk (VHDX version 1) that stands alone. */
class VhdxDisk implements StoredDisk {
  readonly format = "vhdx";
  readonly name: string;
  readonly size: number;
  readonly blockSize: number;
  readonly #storage: Storage;
  readonly #table: TablePages;
  readonly #tableOffset: number;
  /** After so many blocks the table has an entry for a sector bitmap. */
  readonly #chunkBlocks: number;

  constructor(storage: Storage, bat: Region, metadata: VhdxMetadata) {
    this.name = storage.name;
    this.size = metadata.size;
    this.blockSize = metadata.blockSize;
    this.#storage = storage;
    this.#table = new TablePages(storage);
    this.#tableOffset = bat.offset;
    this.#chunkBlocks = chunkBlocks(metadata);
  }

  locate(offset: number): MaybePromise<StoredRun> {
    const block = Math.floor(offset / this.blockSize);
    const inside = offset - block * this.blockSize;
    const inChunk = block % this.#chunkBlocks;
    const at = this.#tableOffset + (block + Math.floor(block / this.#chunkBlocks)) * 8;
    const entry = this.#table.u64(at, Math.min(MOST_EQUAL_BLOCKS, this.#chunkBlocks - inChunk));
    return isPromise(entry) ? entry.then((value) => this.#run(value, block, inside)) : this.#run(entry, block, inside);
  }

  #run({ low, high, count }: EqualWideEntries, block: number, inside: number): StoredRun {
    const length = this.blockSize - inside;
    const state = low & 7;
    if (state < BLOCK_FULLY_PRESENT) {
      return { kind: "zero", length: count * this.blockSize - inside, allocated: state === BLOCK_ZERO };
    }
    const at = high * TWO_32 + ((low & ~(MiB - 1)) >>> 0);
    if (state === BLOCK_PARTIALLY_PRESENT || at < MiB || !Number.isSafeInteger(at)) {
      throw new ZcowError(
        "FORMAT_BLOCK",
        `${this.name}: block ${block} is in state ${state} at file offset ${at}; a disk that stands alone has whole blocks behind the first MiB`,
        {
          data: {
            path: this.name,
            structure: "block allocation table",
            field: `block ${block}`,
            offset: at,
            value: state,
          },
        },
      );
    }
    return { kind: "data", length, storage: this.#storage, at: at + inside, flat: false };
  }

  close(): Promise<void> {
    return this.#storage.close();
  }
}

function chunkBlocks(metadata: VhdxMetadata): number {
  return (SECTORS_PER_BITMAP * metadata.logicalSectorSize) / metadata.blockSize;
}

/**
 * Opens a VHDX. A log that was not replayed is read as if it had been; the file stays as it is.
 *
 * Fails with `FORMAT_FIELD`, `FORMAT_VARIANT`, `FORMAT_CHECKSUM`, `FORMAT_TRUNCATED`, and the codes of the storage.
 */
export async function openVhdx(storage: Storage): Promise<StoredDisk> {
  const header = await readVhdxHeader(storage);
  const current = header.logGuid === undefined ? storage : await replayed(storage, header);
  const { bat, metadata } = await readRegions(current);
  const disk = await readMetadata(current, metadata);
  const blocks = Math.ceil(disk.size / disk.blockSize);
  const needed = (blocks + Math.floor(Math.max(0, blocks - 1) / chunkBlocks(disk))) * 8;
  if (needed > bat.length) {
    throw new ZcowError(
      "FORMAT_FIELD",
      `${storage.name}: ${blocks} blocks need a block allocation table of ${needed} bytes, it has ${bat.length}`,
      { data: { path: storage.name, structure: "block allocation table", value: bat.length, limit: needed } },
    );
  }
  return new VhdxDisk(current, bat, disk);
}

async function replayed(storage: Storage, header: Awaited<ReturnType<typeof readVhdxHeader>>): Promise<Storage> {
  const { patches, fileSize } = await readLog(storage, header);
  return new PatchedStorage(storage, patches, fileSize);
}
