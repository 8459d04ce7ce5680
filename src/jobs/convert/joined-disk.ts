import { isPromise, type MaybePromise, whenAll } from "../../base/maybe-promise.js";
import { SECTOR_SIZE } from "../../base/units.js";
import type { BlockDevice, BlockExtent } from "../../block/block-device.js";

/** Told of bytes that could not be read and are zeros instead. */
export type UnreadableSink = (offset: number, length: number, error: unknown) => void;

/** One source of a copy. */
interface Part {
  readonly device: BlockDevice;
  /** Where it starts on the joined disk, in bytes. */
  readonly start: number;
}

/** Several disks, one after the other, as one to read from. The disks stay the caller's. */
export class JoinedDisk {
  /** Bytes. */
  readonly size: number;
  readonly #parts: readonly Part[];

  constructor(devices: readonly BlockDevice[]) {
    const parts: Part[] = [];
    let start = 0;
    for (const device of devices) {
      parts.push({ device, start });
      start += device.size;
    }
    this.#parts = parts;
    this.size = start;
  }

  /** The disk itself, where it is only one. */
  get only(): BlockDevice | undefined {
    return this.#parts.length === 1 ? this.#parts[0]?.device : undefined;
  }

  read(offset: number, into: Uint8Array): MaybePromise<void> {
    const waits: Promise<void>[] = [];
    for (let done = 0; done < into.length; ) {
      const { device, start } = this.#partAt(offset + done);
      const inside = offset + done - start;
      const length = Math.min(into.length - done, device.size - inside);
      const wait = device.read(inside, into.subarray(done, done + length));
      if (isPromise(wait)) waits.push(wait);
      done += length;
    }
    if (waits.length === 0) return undefined;
    return waits.length === 1 ? waits[0] : whenAll(waits);
  }

  /**
   * The same, but where `onUnreadable` is given, what cannot be read is halved down to single sectors, which become zeros and are told
   * of.
   */
  readWithHoles(offset: number, into: Uint8Array, onUnreadable: UnreadableSink | undefined): MaybePromise<void> {
    return onUnreadable === undefined ? this.read(offset, into) : this.#readWhatCanBe(offset, into, onUnreadable);
  }

  async #readWhatCanBe(offset: number, into: Uint8Array, onUnreadable: UnreadableSink): Promise<void> {
    try {
      await this.read(offset, into);
    } catch (error) {
      if (into.length <= SECTOR_SIZE) {
        into.fill(0);
        onUnreadable(offset, into.length, error);
        return;
      }
      const half = Math.ceil(into.length / 2 / SECTOR_SIZE) * SECTOR_SIZE;
      await this.#readWhatCanBe(offset, into.subarray(0, half), onUnreadable);
      await this.#readWhatCanBe(offset + half, into.subarray(half), onUnreadable);
    }
  }

  /** The runs of all disks, in order, from `offset` to the end. */
  async *extents(offset = 0): AsyncGenerator<BlockExtent> {
    for (const { device, start } of this.#parts) {
      const from = Math.max(0, offset - start);
      if (from >= device.size) continue;
      for await (const extent of device.extents(from, device.size - from)) {
        yield start === 0 ? extent : { ...extent, offset: extent.offset + start };
      }
    }
  }

  #partAt(offset: number): Part {
    return this.#parts.findLast((part) => part.start <= offset && part.device.size > 0) as Part;
  }
}
