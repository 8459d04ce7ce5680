import { ZcowError } from "../../base/errors.js";
import { alignUp } from "../../base/integers.js";
import type { MaybePromise } from "../../base/maybe-promise.js";
import { SECTOR_SIZE } from "../../base/units.js";
import { BaseBlockDevice } from "../../block/base-device.js";
import type { BlockExtent } from "../../block/block-device.js";
import { PROBE_LENGTH } from "../../block/format-driver.js";
import type { StorageDebug } from "../../storage/debug/events.js";
import type { Storage } from "../../storage/storage.js";

/** 4 KiB: the page of the host, below which its file system reads before it writes. */
const OPTIMAL_ALIGNMENT = 4096;

/** How a raw disk is opened. */
export interface OpenRawOptions {
  /** Default: as writable as the storage. */
  readonly readOnly?: boolean;
  /**
   * For disks that are raw only because nothing else was recognised: tells whether a start of {@link PROBE_LENGTH}
   * bytes would be taken for another format. Writes that would leave such a start are refused with `FORMAT_MARK`, so
   * that who writes to the disk cannot choose how it is opened the next time.
   */
  readonly looksLikeImage?: (head: Uint8Array) => boolean;
}

/**
 * A disk whose bytes are the bytes of its storage.
 *
 * The disk is a whole number of 512-byte sectors: a storage of another length appears rounded up, the missing
 * bytes read as zeros, and writing them makes the storage longer.
 */
class RawDevice extends BaseBlockDevice {
  readonly #storage: Storage;
  readonly #debug: StorageDebug | undefined;
  readonly #looksLikeImage: ((head: Uint8Array) => boolean) | undefined;
  /** Guarded writes take turns: each judges the start that the one before left. */
  #lastGuarded: Promise<void> = Promise.resolve();

  constructor(storage: Storage, options: OpenRawOptions) {
    super({
      format: "raw",
      name: storage.name,
      size: alignUp(storage.size(), SECTOR_SIZE),
      readOnly: options.readOnly ?? !storage.capabilities.writable,
      limits: {
        requestAlignment: 1,
        optimalAlignment: Math.max(OPTIMAL_ALIGNMENT, storage.capabilities.alignment),
        zoned: undefined,
      },
    });
    this.#storage = storage;
    this.#debug = storage.debug;
    this.#looksLikeImage = options.looksLikeImage;
  }

  get descriptor(): number | undefined {
    return this.#storage.descriptor;
  }

  grow(size: number): Promise<void> {
    return this.growBy(size, async (to) => this.#storage.truncate(to));
  }

  protected doRead(offset: number, into: Uint8Array): MaybePromise<void> {
    this.#debug?.event("read_aio");
    return this.#storage.read(offset, into);
  }

  protected doWrite(offset: number, from: Uint8Array): MaybePromise<void> {
    this.#debug?.event("write_aio");
    if (this.#looksLikeImage === undefined || offset >= PROBE_LENGTH) return this.#storage.write(offset, from);
    const turn = this.#lastGuarded.then(() => this.#guardedWrite(offset, from));
    this.#lastGuarded = turn.catch(() => undefined);
    return turn;
  }

  async #guardedWrite(offset: number, from: Uint8Array): Promise<void> {
    const head = new Uint8Array(PROBE_LENGTH);
    await this.#storage.read(0, head);
    head.set(from.subarray(0, PROBE_LENGTH - offset), offset);
    if (this.#looksLikeImage?.(head) === true) {
      throw new ZcowError(
        "FORMAT_MARK",
        `${this.name} was guessed to be raw, and this write would make it look like an image of another format; open it as raw to allow that`,
        { data: { path: this.name, offset, length: from.length } },
      );
    }
    await this.#storage.write(offset, from);
  }

  protected doWriteZeroes(offset: number, length: number, unmap: boolean): MaybePromise<void> {
    return this.#storage.writeZeroes(offset, length, { unmap });
  }

  protected doDiscard(offset: number, length: number): MaybePromise<void> {
    return this.#storage.discard(offset, length);
  }

  protected doFlush(): MaybePromise<void> {
    this.#debug?.event("flush_to_os");
    return this.#storage.flush();
  }

  protected async *doExtents(offset: number, length: number): AsyncIterable<BlockExtent> {
    for await (const run of this.#storage.extents(offset, length)) {
      yield {
        offset: run.offset,
        length: run.length,
        kind: run.hole ? "zero" : "data",
        hostOffset: run.hostOffset ?? run.offset,
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
  return new RawDevice(storage, options);
}
