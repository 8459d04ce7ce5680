import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { SECTOR_SIZE } from "../../base/units.js";
import type { Storage } from "../../storage/storage.js";
import type { StoredDisk, StoredRun } from "../stored-disk.js";
import { type EqualEntries, TablePages } from "../table-pages.js";
import { readVpcHeader, type VpcBlocks, type VpcHeader } from "./header.js";

const UNALLOCATED = 0xffff_ffff;

/** A Virtual PC disk image (VHD version 1), fixed or dynamic. */
class VpcDisk implements StoredDisk {
  readonly format = "vpc";
  readonly name: string;
  readonly size: number;
  readonly blockSize: number | undefined;
  readonly #storage: Storage;
  readonly #blocks: VpcBlocks | undefined;
  readonly #table: TablePages;

  constructor(storage: Storage, header: VpcHeader) {
    this.name = storage.name;
    this.size = header.size;
    this.blockSize = header.blocks?.blockSize;
    this.#storage = storage;
    this.#blocks = header.blocks;
    this.#table = new TablePages(storage);
  }

  locate(offset: number): MaybePromise<StoredRun> {
    const blocks = this.#blocks;
    if (blocks === undefined) {
      return { kind: "data", length: this.size - offset, storage: this.#storage, at: offset, flat: true };
    }
    const block = Math.floor(offset / blocks.blockSize);
    const inside = offset - block * blocks.blockSize;
    const entry = this.#table.u32(blocks.tableOffset + block * 4, false);
    return isPromise(entry)
      ? entry.then((found) => this.#run(blocks, found, inside))
      : this.#run(blocks, entry, inside);
  }

  /** Sectors that were never written are zeros in the file, so the bitmap before the data need not be asked. */
  #run(blocks: VpcBlocks, { value: sector, count }: EqualEntries, inside: number): StoredRun {
    if (sector === UNALLOCATED) return { kind: "zero", length: count * blocks.blockSize - inside, allocated: true };
    const length = blocks.blockSize - inside;
    const at = sector * SECTOR_SIZE + blocks.bitmapBytes + inside;
    return { kind: "data", length, storage: this.#storage, at, flat: false };
  }

  close(): Promise<void> {
    return this.#storage.close();
  }
}

/** Opens a VHD; fails with `FORMAT_FIELD`, `FORMAT_VARIANT`, `FORMAT_CHECKSUM`, `FORMAT_TRUNCATED`, and the codes of the storage. */
export async function openVpc(storage: Storage): Promise<StoredDisk> {
  return new VpcDisk(storage, await readVpcHeader(storage));
}
