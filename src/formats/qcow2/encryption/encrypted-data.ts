import { alignDown, alignUp, isAligned } from "../../../base/integers.js";
import { isPromise, type MaybePromise } from "../../../base/maybe-promise.js";
import { KiB } from "../../../base/units.js";
import { CIPHER_SECTOR_BYTES, type SectorCipher } from "../../../codec/cipher/sector-cipher.js";
import type { Storage } from "../../../storage/storage.js";
import type { GuestData } from "../guest-data.js";
import { SectorLocks } from "./sector-locks.js";

/** Zeros are encrypted this many bytes at a time. */
const ZERO_PIECE_BYTES = 256 * KiB;

/**
 * Guest data encrypted by sectors of 512 bytes, on top of where the bytes live otherwise. Whole sectors take one pass; of a
 * sector that a request covers in part the rest is read, decrypted and written again, while nobody else uses that sector.
 */
export class EncryptedData implements GuestData {
  readonly storage: Storage;
  readonly direct = undefined;
  readonly inImage: boolean;
  /** Zeros that were never written decrypt to noise. */
  readonly freshIsZero = false;
  readonly #inner: GuestData;
  readonly #cipher: SectorCipher;
  readonly #numberedBy: "host" | "guest";
  readonly #locks = new SectorLocks();

  /** `numberedBy`: whether the number of a sector, which its encryption depends on, comes from its host or its guest offset. */
  constructor(inner: GuestData, cipher: SectorCipher, numberedBy: "host" | "guest") {
    this.storage = inner.storage;
    this.inImage = inner.inImage;
    this.#inner = inner;
    this.#cipher = cipher;
    this.#numberedBy = numberedBy;
  }

  read(host: number, guest: number, into: Uint8Array): MaybePromise<void> {
    const busy = this.#locks.partialWrite(host, into.length);
    if (busy !== undefined) return busy.then(() => this.read(host, guest, into));
    return isWhole(host, into.length) ? this.#readWhole(host, guest, into) : this.#readPart(host, guest, into);
  }

  #readWhole(host: number, guest: number, into: Uint8Array): MaybePromise<void> {
    const wait = this.#inner.read(host, guest, into);
    if (isPromise(wait)) return wait.then(() => this.#cipher.decrypt(this.#sector(host, guest), into));
    this.#cipher.decrypt(this.#sector(host, guest), into);
    return undefined;
  }

  #readPart(host: number, guest: number, into: Uint8Array): MaybePromise<void> {
    const { before, length } = sectorsAround(host, into.length);
    const sectors = new Uint8Array(length);
    const wait = this.#readWhole(host - before, guest - before, sectors);
    const take = (): void => into.set(sectors.subarray(before, before + into.length));
    if (isPromise(wait)) return wait.then(take);
    take();
    return undefined;
  }

  write(host: number, guest: number, from: Uint8Array): MaybePromise<void> {
    const partial = !isWhole(host, from.length);
    const busy = this.#locks.conflict(host, from.length, partial);
    if (busy !== undefined) return busy.then(() => this.write(host, guest, from));
    const work = partial ? this.#writePart(host, guest, from) : this.#writeWhole(host, guest, from);
    return this.#locks.follow(host, from.length, partial, work);
  }

  #writeWhole(host: number, guest: number, from: Uint8Array): MaybePromise<void> {
    return this.#inner.write(host, guest, this.#cipher.encrypt(this.#sector(host, guest), from));
  }

  async #writePart(host: number, guest: number, from: Uint8Array): Promise<void> {
    const { before, length } = sectorsAround(host, from.length);
    const sectors = new Uint8Array(length);
    const last = length - CIPHER_SECTOR_BYTES;
    if (before > 0 || from.length < CIPHER_SECTOR_BYTES)
      await this.#readSector(host - before, guest - before, sectors, 0);
    if (last > 0 && before + from.length < length) await this.#readSector(host - before, guest - before, sectors, last);
    sectors.set(from, before);
    await this.#writeWhole(host - before, guest - before, sectors);
  }

  #readSector(host: number, guest: number, sectors: Uint8Array, at: number): MaybePromise<void> {
    return this.#readWhole(host + at, guest + at, sectors.subarray(at, at + CIPHER_SECTOR_BYTES));
  }

  async writeZeroes(host: number, guest: number, length: number): Promise<void> {
    const zeros = new Uint8Array(Math.min(length, ZERO_PIECE_BYTES));
    for (let done = 0; done < length; ) {
      // Pieces end at multiples of their size, so that no sector is written in two parts.
      const next = Math.min(length, alignDown(host + done, ZERO_PIECE_BYTES) + ZERO_PIECE_BYTES - host);
      await this.write(host + done, guest + done, zeros.subarray(0, next - done));
      done = next;
    }
  }

  erased(guest: number, length: number, unmap: boolean): MaybePromise<void> {
    return this.#inner.erased(guest, length, unmap);
  }

  makeRoom(size: number): MaybePromise<void> {
    return this.#inner.makeRoom(size);
  }

  setEnd(size: number): void {
    this.#inner.setEnd(size);
  }

  flush(): MaybePromise<void> {
    return this.#inner.flush();
  }

  close(): Promise<void> {
    return this.#inner.close();
  }

  #sector(host: number, guest: number): number {
    return (this.#numberedBy === "host" ? host : guest) / CIPHER_SECTOR_BYTES;
  }
}

function isWhole(at: number, length: number): boolean {
  return isAligned(at, CIPHER_SECTOR_BYTES) && isAligned(length, CIPHER_SECTOR_BYTES);
}

/** The whole sectors around [at, at + length): the bytes in front, and the length of all. */
function sectorsAround(at: number, length: number): { readonly before: number; readonly length: number } {
  const before = at % CIPHER_SECTOR_BYTES;
  return { before, length: alignUp(before + length, CIPHER_SECTOR_BYTES) };
}
