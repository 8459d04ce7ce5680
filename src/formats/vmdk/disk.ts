import type { MaybePromise } from "../../base/maybe-promise.js";
import { isPromise } from "../../base/maybe-promise.js";
import type { BlockDevice } from "../../block/block-device.js";
import type { Storage } from "../../storage/storage.js";
import type { StoredDisk, StoredRun } from "../stored-disk.js";
import type { SparseExtent } from "./sparse-extent.js";

/** A part of the disk, in the order of the descriptor. `start` and `length` in bytes of the disk. */
export type VmdkExtent = { readonly start: number; readonly length: number } & (
  | { readonly kind: "sparse"; readonly extent: SparseExtent }
  | { readonly kind: "flat"; readonly storage: Storage; readonly at: number }
  | { readonly kind: "zero" }
);

/** A VMware disk: one or more extents, one after the other. */
export class VmdkDisk implements StoredDisk {
  readonly format = "vmdk";
  readonly name: string;
  readonly size: number;
  readonly blockSize: number | undefined;
  readonly #extents: readonly VmdkExtent[];
  readonly #storages: readonly Storage[];
  readonly backing: BlockDevice | undefined;

  /** Owns `storages`, those of the extents and the one of the descriptor, and the parent. */
  constructor(name: string, extents: readonly VmdkExtent[], storages: readonly Storage[], parent?: BlockDevice) {
    const last = extents.at(-1);
    const first = extents[0];
    this.name = name;
    this.size = last === undefined ? 0 : last.start + last.length;
    this.blockSize = first?.kind === "sparse" ? first.extent.header.grainSize : undefined;
    this.#extents = extents;
    this.#storages = storages;
    this.backing = parent;
  }

  locate(offset: number): MaybePromise<StoredRun> {
    const extent = this.#extentAt(offset);
    const inside = offset - extent.start;
    const left = extent.length - inside;
    switch (extent.kind) {
      case "zero":
        return { kind: "zero", length: left, allocated: true };
      case "flat":
        return { kind: "data", length: left, storage: extent.storage, at: extent.at + inside, flat: true };
      case "sparse": {
        const run = extent.extent.locate(inside);
        return isPromise(run) ? run.then((found) => cut(found, left)) : cut(run, left);
      }
    }
  }

  #extentAt(offset: number): VmdkExtent {
    let low = 0;
    let high = this.#extents.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if ((this.#extents[middle] as VmdkExtent).start <= offset) low = middle;
      else high = middle - 1;
    }
    return this.#extents[low] as VmdkExtent;
  }

  /** Bytes of host space that all files take; undefined when one cannot tell. */
  allocatedSize(): number | undefined {
    let sum = 0;
    for (const storage of this.#storages) {
      const size = storage.allocatedSize();
      if (size === undefined) return undefined;
      sum += size;
    }
    return sum;
  }

  async close(): Promise<void> {
    await Promise.all([this.backing?.close(), ...this.#storages.map((storage) => storage.close())]);
  }
}

function cut(run: StoredRun, length: number): StoredRun {
  return run.length <= length ? run : { ...run, length };
}
