import type { MaybePromise } from "../../base/maybe-promise.js";
import { BaseBlockDevice } from "../../block/base-device.js";
import type { BlockExtent, DiskFiller, DiskPart, StorePlaces } from "../../block/block-device.js";
import type { BitmapTracking } from "./bitmaps/bitmap-tracking.js";
import type { DirtyBits } from "./bitmaps/dirty-bits.js";
import type { Qcow2Engine } from "./engine-contract.js";
import type { Qcow2Header } from "./header.js";

/** A plain (not zoned) disk in a qcow2 image: the validating base over the engine. Requests of any alignment. */
export class Qcow2Device extends BaseBlockDevice implements BitmapTracking {
  readonly #engine: Qcow2Engine;

  constructor(engine: Qcow2Engine) {
    super({
      format: "qcow2",
      name: engine.storage.name,
      size: engine.geometry.size,
      readOnly: !engine.writable,
      limits: { requestAlignment: 1, optimalAlignment: engine.geometry.clusterSize, zoned: undefined },
    });
    this.#engine = engine;
  }

  /** The header as it is in the file now. */
  get header(): Qcow2Header {
    return this.#engine.header;
  }

  get descriptor(): number | undefined {
    return this.#engine.storage.descriptor;
  }

  get filler(): DiskFiller | undefined {
    const filler = this.#engine.filler;
    if (filler === undefined) return undefined;
    return {
      fillParts: (parts: readonly DiskPart[], store: StorePlaces, turn?: Promise<void>): Promise<boolean> => {
        for (const { offset, length } of parts) {
          this.assertRequest("fill", offset, length, this.limits.optimalAlignment);
        }
        this.assertWritable("fill");
        return this.track(filler.fillParts(parts, store, turn));
      },
    };
  }

  grow(size: number): Promise<void> {
    return this.growBy(size, (to) => this.#engine.grow(to));
  }

  dirtyBits(name: string): DirtyBits | undefined {
    return this.#engine.bitmaps?.bits(name);
  }

  protected override doRead(offset: number, into: Uint8Array): MaybePromise<void> {
    return this.#engine.read(offset, into);
  }

  protected override doWrite(offset: number, from: Uint8Array): MaybePromise<void> {
    return this.#engine.write(offset, from);
  }

  protected override doWriteCompressed(offset: number, from: Uint8Array): MaybePromise<void> {
    this.#engine.assertCompressible(offset, from.length);
    return this.#engine.writeCompressed(offset, from, false);
  }

  protected override doWriteZeroes(offset: number, length: number, unmap: boolean): MaybePromise<void> {
    return this.#engine.writeZeroes(offset, length, unmap);
  }

  protected override doDiscard(offset: number, length: number): MaybePromise<void> {
    return this.#engine.discard(offset, length, "hint");
  }

  protected override doFlush(): MaybePromise<void> {
    return this.#engine.flush();
  }

  protected override doExtents(offset: number, length: number): AsyncIterable<BlockExtent> {
    return this.#engine.extents(offset, length);
  }

  protected override doClose(): Promise<void> {
    return this.#engine.close();
  }
}
