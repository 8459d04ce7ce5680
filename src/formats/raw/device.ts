import { alignUp } from "../../base/integers.js";
import type { MaybePromise } from "../../base/maybe-promise.js";
import { SECTOR_SIZE } from "../../base/units.js";
import { BaseBlockDevice } from "../../block/base-device.js";
import type { BlockExtent } from "../../block/block-device.js";
import type { Storage } from "../../storage/storage.js";

/** 4 KiB: the page of the host, below which its file system reads before it writes. */
const OPTIMAL_ALIGNMENT = 4096;

/** How a raw disk is opened. */
export interface OpenRawOptions {
  /** Default: as writable as the storage. */
  readonly readOnly?: boolean;
}

/**
 * A disk whose bytes are the bytes of its storage.
 *
 * The disk is a whole number of 512-byte sectors: a storage of another length appears rounded up, the missing
 * bytes read as zeros, and writing them makes the storage longer.
 */
class RawDevice extends BaseBlockDevice {
  readonly #storage: Storage;

  constructor(storage: Storage, readOnly: boolean) {
    super({
      format: "raw",
      name: storage.name,
      size: alignUp(storage.size(), SECTOR_SIZE),
      readOnly,
      limits: {
        requestAlignment: 1,
        optimalAlignment: Math.max(OPTIMAL_ALIGNMENT, storage.capabilities.alignment),
        zoned: undefined,
      },
    });
    this.#storage = storage;
  }

  protected doRead(offset: number, into: Uint8Array): MaybePromise<void> {
    return this.#storage.read(offset, into);
  }

  protected doWrite(offset: number, from: Uint8Array): MaybePromise<void> {
    return this.#storage.write(offset, from);
  }

  protected doWriteZeroes(offset: number, length: number, unmap: boolean): MaybePromise<void> {
    return this.#storage.writeZeroes(offset, length, { unmap });
  }

  protected doDiscard(offset: number, length: number): MaybePromise<void> {
    return this.#storage.discard(offset, length);
  }

  protected doFlush(): MaybePromise<void> {
    return this.#storage.flush();
  }

  protected async *doExtents(offset: number, length: number): AsyncIterable<BlockExtent> {
    for await (const run of this.#storage.extents(offset, length)) {
      yield {
        offset: run.offset,
        length: run.length,
        kind: run.hole ? "zero" : "data",
        hostOffset: run.offset,
        compressed: false,
        depth: 0,
        zero: run.hole,
      };
    }
  }

  protected doClose(): Promise<void> {
    return this.#storage.close();
  }
}

/** Opens `storage` as a raw disk. The device owns the storage: closing the one closes the other. */
export function openRaw(storage: Storage, options: OpenRawOptions = {}): BaseBlockDevice {
  return new RawDevice(storage, options.readOnly ?? !storage.capabilities.writable);
}
