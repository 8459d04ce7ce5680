import { ZcowError } from "../../base/errors.js";
import type { MaybePromise } from "../../base/maybe-promise.js";
import type { BlockDevice } from "../../block/block-device.js";
import type { Storage, StorageCapabilities, StorageExtent } from "../../storage/storage.js";

/** A disk as a place where bytes live, for what is stacked on top of a disk in some format. Its size is fixed. */
class DeviceStorage implements Storage {
  readonly name: string;
  readonly capabilities: StorageCapabilities;
  readonly #device: BlockDevice;

  constructor(device: BlockDevice) {
    this.#device = device;
    this.name = device.name;
    this.capabilities = Object.freeze({
      writable: !device.readOnly,
      resizable: false,
      discard: true,
      efficientZeroes: true,
      holes: true,
      synchronous: false,
      alignment: device.limits.requestAlignment,
      durable: true,
    });
  }

  size(): number {
    return this.#device.size;
  }

  async read(at: number, into: Uint8Array): Promise<void> {
    const inside = Math.max(0, Math.min(into.length, this.#device.size - at));
    if (inside > 0) await this.#device.read(at, into.subarray(0, inside));
    into.fill(0, inside);
  }

  async write(at: number, from: Uint8Array): Promise<void> {
    this.#refusePastEnd(at, from.length);
    await this.#device.write(at, from);
  }

  async writeZeroes(at: number, length: number, options?: { readonly unmap?: boolean }): Promise<void> {
    this.#refusePastEnd(at, length);
    await this.#device.writeZeroes(at, length, options);
  }

  async discard(at: number, length: number): Promise<void> {
    const inside = Math.max(0, Math.min(length, this.#device.size - at));
    if (inside > 0) await this.#device.discard(at, inside);
  }

  flush(): MaybePromise<void> {
    return this.#device.flush();
  }

  async truncate(size: number): Promise<void> {
    if (size !== this.#device.size) this.#refusePastEnd(size, 0);
  }

  async *extents(at: number, length: number): AsyncGenerator<StorageExtent> {
    const inside = Math.max(0, Math.min(length, this.#device.size - at));
    for await (const extent of this.#device.extents(at, inside)) {
      yield { offset: extent.offset, length: extent.length, hole: extent.zero };
    }
    if (inside < length) yield { offset: at + inside, length: length - inside, hole: true };
  }

  allocatedSize(): undefined {
    return undefined;
  }

  close(): Promise<void> {
    return this.#device.close();
  }

  #refusePastEnd(at: number, length: number): void {
    const { size } = this.#device;
    if (length > 0 && at + length <= size) return;
    throw new ZcowError("STORAGE_UNSUPPORTED", `${this.name} is a disk of ${size} bytes, which cannot change here`, {
      data: { path: this.name, offset: at, length, limit: size },
    });
  }
}

/** The disk `device` as a storage, which then owns it. */
export function deviceStorage(device: BlockDevice): Storage {
  return new DeviceStorage(device);
}
