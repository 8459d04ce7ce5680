import type { MaybePromise } from "../../base/maybe-promise.js";
import type { Storage } from "../../storage/storage.js";
import type { GuestData } from "./guest-data.js";

/**
 * Guest data in an external data file (qcow2 specification, "External data file name string"): every guest byte has the same
 * offset there, nothing in it is counted, and the image file keeps only the mapping.
 *
 * A raw data file is a raw disk by itself: what reads as zeros is zeros in it.
 */
export class ExternalData implements GuestData {
  readonly storage: Storage;
  readonly direct: Storage;
  readonly inImage = false;
  /** The file is not ours alone: what no cluster maps may hold anything. */
  readonly freshIsZero = false;
  #diskSize: number;
  readonly #isRaw: boolean;

  constructor(storage: Storage, diskSize: number, isRaw: boolean) {
    this.storage = storage;
    this.direct = storage;
    this.#diskSize = diskSize;
    this.#isRaw = isRaw;
  }

  read(host: number, _guest: number, into: Uint8Array): MaybePromise<void> {
    return this.storage.read(host, into);
  }

  /** The rest of the last cluster of the disk is not stored: it would make a raw disk longer. */
  write(host: number, _guest: number, from: Uint8Array): MaybePromise<void> {
    const room = Math.max(0, this.#diskSize - host);
    return this.storage.write(host, room < from.length ? from.subarray(0, room) : from);
  }

  writeZeroes(host: number, _guest: number, length: number): MaybePromise<void> {
    const room = Math.min(length, this.#diskSize - host);
    return room > 0 ? this.storage.writeZeroes(host, room) : undefined;
  }

  /** A raw file gets its zeros; otherwise the bytes are of no interest any more. */
  erased(guest: number, length: number, unmap: boolean): MaybePromise<void> {
    const room = Math.min(length, this.#diskSize - guest);
    if (room <= 0) return undefined;
    if (this.#isRaw) return this.storage.writeZeroes(guest, room, { unmap });
    return unmap && this.storage.capabilities.discard ? this.storage.discard(guest, room) : undefined;
  }

  /** The file is as long as its disk. What it has behind the end is nobody's, but a raw disk would show it, and so would the last cluster. */
  async makeRoom(size: number): Promise<void> {
    const had = this.storage.size();
    const stale = Math.min(had, size) - this.#diskSize;
    if (stale > 0) await this.storage.writeZeroes(this.#diskSize, stale, { unmap: true });
    if (had < size) await this.storage.truncate(size);
  }

  setEnd(size: number): void {
    this.#diskSize = size;
  }

  flush(): MaybePromise<void> {
    return this.storage.flush();
  }

  close(): Promise<void> {
    return this.storage.close();
  }
}
