import { isPromise, type MaybePromise, whenAll } from "../../base/maybe-promise.js";
import type { BlockDevice, BlockExtent } from "../../block/block-device.js";

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
