import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import type { Storage } from "../../storage/storage.js";
import type { StoredDisk, StoredRun } from "../stored-disk.js";
import { type EqualEntries, TablePages } from "../table-pages.js";
import { readVdiHeader, type VdiHeader } from "./header.js";

/** Block map entries from here on are no places: 0xffffffff never written, 0xfffffffe discarded. */
const FIRST_UNALLOCATED = 0xffff_fffe;

/** A VirtualBox disk image (VDI 1.1, dynamic or static). */
class VdiDisk implements StoredDisk {
  readonly format = "vdi";
  readonly name: string;
  readonly size: number;
  readonly blockSize: number;
  readonly #storage: Storage;
  readonly #header: VdiHeader;
  readonly #map: TablePages;

  constructor(storage: Storage, header: VdiHeader) {
    this.name = storage.name;
    this.size = header.size;
    this.blockSize = header.blockSize;
    this.#storage = storage;
    this.#header = header;
    this.#map = new TablePages(storage);
  }

  locate(offset: number): MaybePromise<StoredRun> {
    const block = Math.floor(offset / this.blockSize);
    const entry = this.#map.u32(this.#header.mapOffset + block * 4, true);
    const inside = offset - block * this.blockSize;
    return isPromise(entry) ? entry.then((found) => this.#run(found, inside)) : this.#run(entry, inside);
  }

  #run({ value: entry, count }: EqualEntries, inside: number): StoredRun {
    if (entry >= FIRST_UNALLOCATED) return { kind: "zero", length: count * this.blockSize - inside, allocated: true };
    const length = this.blockSize - inside;
    const at = this.#header.dataOffset + entry * this.blockSize + inside;
    return { kind: "data", length, storage: this.#storage, at, flat: this.#header.isStatic };
  }

  close(): Promise<void> {
    return this.#storage.close();
  }
}

/** Opens a VDI image; fails with `FORMAT_FIELD`, `FORMAT_VARIANT`, and the codes of the storage. */
export async function openVdi(storage: Storage): Promise<StoredDisk> {
  return new VdiDisk(storage, await readVdiHeader(storage));
}
