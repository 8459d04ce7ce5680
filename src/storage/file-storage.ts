import * as fs from "node:fs";
import type { MaybePromise } from "../base/maybe-promise.js";
import { MiB } from "../base/units.js";
import { dataUpTo } from "./extent-runs.js";
import { type OpenDescriptor, openDescriptor } from "./file-opening.js";
import { readHere, readInPool, writeHere, writeInPool } from "./file-transfer.js";
import type { Storage, StorageCapabilities, StorageExtent } from "./storage.js";
import { closedError, rangeError, readOnlyError, storageError } from "./storage-error.js";

/** Written over and over where the system cannot make zeros itself. */
const ZEROS = new Uint8Array(MiB);

/** How calls reach the operating system; see {@link FileStorageOptions.io}. */
export type IoMode = "auto" | "sync" | "pool";

export interface FileStorageOptions {
  /** Default false: reading only. */
  readonly writable?: boolean;
  /** Make the file when it does not exist. Default false. */
  readonly create?: boolean;
  /** With `create`: refuse a file that exists (`ALREADY_EXISTS`). Default false. */
  readonly exclusive?: boolean;
  /** Empty the file first. Default false. */
  readonly truncate?: boolean;
  /**
   * "sync" makes every call on this thread, "pool" every call in the thread pool; "auto" (the default)
   * reads on this thread while the bytes come from the page cache, and writes on this thread.
   */
  readonly io?: IoMode;
}

class FileStorage implements Storage {
  readonly name: string;
  readonly capabilities: StorageCapabilities;
  readonly #fd: number;
  readonly #io: IoMode;
  #size: number;
  #inFlight = 0;
  #closing: Promise<void> | undefined;
  #wakeCloser: (() => void) | undefined;
  #flushFailure: unknown;

  constructor(name: string, file: OpenDescriptor, options: FileStorageOptions) {
    this.name = name;
    this.#fd = file.fd;
    this.#size = file.size;
    this.#io = options.io ?? "auto";
    const writable = options.writable ?? false;
    this.capabilities = Object.freeze({
      writable,
      resizable: writable && !file.blockDevice,
      discard: false,
      efficientZeroes: false,
      holes: false,
      synchronous: this.#io !== "pool",
      alignment: 1,
      durable: true,
    });
  }

  size(): number {
    return this.#size;
  }

  read(at: number, into: Uint8Array): MaybePromise<void> {
    const refusal = this.#refuse(at, into.length);
    if (refusal !== undefined) return refusal;
    if (this.#io === "pool") return this.#track(this.#readInPool(at, into, 0));
    try {
      const done = readHere(this.#fd, at, into);
      if (done < into.length) into.fill(0, done);
    } catch (cause) {
      return Promise.reject(this.#error(cause, "read", at, into.length));
    }
    return undefined;
  }

  write(at: number, from: Uint8Array): MaybePromise<void> {
    const refusal = this.#refuse(at, from.length) ?? this.#refuseChange();
    if (refusal !== undefined) return refusal;
    if (from.length === 0) return undefined;
    if (this.#io === "pool") return this.#track(this.#writeInPool(at, from));
    try {
      writeHere(this.#fd, at, from);
    } catch (cause) {
      return Promise.reject(this.#error(cause, "write", at, from.length));
    }
    this.#size = Math.max(this.#size, at + from.length);
    return undefined;
  }

  writeZeroes(at: number, length: number): MaybePromise<void> {
    const refusal = this.#refuse(at, length) ?? this.#refuseChange();
    if (refusal !== undefined) return refusal;
    if (length === 0) return undefined;
    return this.#track(this.#writeZeroes(at, length));
  }

  discard(at: number, length: number): MaybePromise<void> {
    return this.#refuse(at, length) ?? this.#refuseChange();
  }

  flush(): MaybePromise<void> {
    const refusal = this.#refuse(0, 0);
    if (refusal !== undefined) return refusal;
    if (this.#io === "sync") {
      try {
        this.#throwFlushFailure();
        fs.fdatasyncSync(this.#fd);
      } catch (cause) {
        return Promise.reject(this.#flushError(cause));
      }
      return undefined;
    }
    return this.#track(this.#flush());
  }

  truncate(size: number): MaybePromise<void> {
    const refusal = this.#refuse(size, 0) ?? this.#refuseChange();
    if (refusal !== undefined) return refusal;
    try {
      this.#setLength(size);
    } catch (cause) {
      return Promise.reject(cause);
    }
    return undefined;
  }

  async *extents(at: number, length: number): AsyncGenerator<StorageExtent> {
    const refusal = this.#refuse(at, length);
    if (refusal !== undefined) await refusal;
    yield* dataUpTo(this.#size, at, length);
  }

  allocatedSize(): number | undefined {
    if (this.#closing !== undefined) return undefined;
    return fs.fstatSync(this.#fd).blocks * 512;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#inFlight > 0) {
      await new Promise<void>((resolve) => {
        this.#wakeCloser = resolve;
      });
    }
    try {
      fs.closeSync(this.#fd);
    } catch (cause) {
      throw this.#error(cause, "close");
    }
  }

  async #readInPool(at: number, into: Uint8Array, from: number): Promise<void> {
    try {
      const done = await readInPool(this.#fd, at, into, from);
      if (done < into.length) into.fill(0, done);
    } catch (cause) {
      throw this.#error(cause, "read", at, into.length);
    }
  }

  async #writeInPool(at: number, from: Uint8Array): Promise<void> {
    try {
      await writeInPool(this.#fd, at, from);
    } catch (cause) {
      throw this.#error(cause, "write", at, from.length);
    }
    this.#size = Math.max(this.#size, at + from.length);
  }

  async #writeZeroes(at: number, length: number): Promise<void> {
    const end = at + length;
    const overlap = Math.min(end, Math.max(this.#size, at)) - at;
    for (let done = 0; done < overlap; done += ZEROS.length) {
      await this.#writeInPool(at + done, ZEROS.subarray(0, Math.min(ZEROS.length, overlap - done)));
    }
    if (end > this.#size) this.#setLength(end);
  }

  #setLength(size: number): void {
    try {
      fs.ftruncateSync(this.#fd, size);
    } catch (cause) {
      throw this.#error(cause, "truncate", undefined, size);
    }
    this.#size = size;
  }

  async #flush(): Promise<void> {
    try {
      this.#throwFlushFailure();
      await new Promise<void>((resolve, reject) => {
        fs.fdatasync(this.#fd, (error) => (error === null ? resolve() : reject(error)));
      });
    } catch (cause) {
      throw this.#flushError(cause);
    }
  }

  /** A failed flush may have dropped dirty pages, and the next one would report success for bytes that are lost. */
  #throwFlushFailure(): void {
    if (this.#flushFailure !== undefined) throw this.#flushFailure;
  }

  #flushError(cause: unknown): Error {
    this.#flushFailure ??= cause;
    return this.#error(cause, "flush");
  }

  async #track(work: Promise<void>): Promise<void> {
    this.#inFlight++;
    try {
      await work;
    } finally {
      this.#inFlight--;
      if (this.#inFlight === 0) this.#wakeCloser?.();
    }
  }

  #error(cause: unknown, verb: string, offset?: number, length?: number): Error {
    return storageError(cause, {
      verb,
      name: this.name,
      ...(offset === undefined ? {} : { offset }),
      ...(length === undefined ? {} : { length }),
    });
  }

  #refuse(at: number, length: number): Promise<void> | undefined {
    if (this.#closing !== undefined) return Promise.reject(closedError(this.name));
    const error = rangeError(this.name, at, length);
    return error === undefined ? undefined : Promise.reject(error);
  }

  #refuseChange(): Promise<void> | undefined {
    return this.capabilities.writable ? undefined : Promise.reject(readOnlyError(this.name));
  }
}

/**
 * Opens a regular file or block device.
 *
 * Errors: `NOT_FOUND`, `ALREADY_EXISTS`, `ACCESS_DENIED`, `NOT_A_DISK`, `LOCKED`, `IO_ERROR`.
 */
export async function openFileStorage(path: string, options: FileStorageOptions = {}): Promise<Storage> {
  const file = openDescriptor(path, {
    writable: options.writable ?? false,
    create: options.create ?? false,
    exclusive: options.exclusive ?? false,
    truncate: options.truncate ?? false,
  });
  return new FileStorage(path, file, options);
}
