import * as fs from "node:fs";
import { ZcowError } from "../base/errors.js";
import type { MaybePromise } from "../base/maybe-promise.js";
import { dataHoleRuns } from "../host/data-hole-map.js";
import { DIRECT_ALIGNMENT } from "../host/direct-io.js";
import { nativeCalls } from "../host/native.js";
import { canPunchHoles } from "../host/punch-hole.js";
import { DirectTransfers } from "./direct-transfers.js";
import { dataUpTo, mergeExtents } from "./extent-runs.js";
import { FileFlusher } from "./file-flush.js";
import type { OpenDescriptor } from "./file-opening.js";
import { bufferedTransfers, type FileTransfers, type IoMode } from "./file-transfers.js";
import { FileZeroes } from "./file-zeroes.js";
import { InFlight } from "./in-flight.js";
import type { Storage, StorageCapabilities, StorageExtent } from "./storage.js";
import { closedError, rangeError, readOnlyError, storageError } from "./storage-error.js";

/** What a file storage is made of. It closes both descriptors. */
export interface FileParts {
  readonly file: OpenDescriptor;
  /** The same file opened for transfers that bypass the page cache, if they shall. */
  readonly directFd: number | undefined;
  readonly writable: boolean;
  readonly io: IoMode;
  readonly noFlush: boolean;
  /** Ends the locks that do not end with the descriptor, if there are any. */
  readonly unlock: (() => void) | undefined;
}

/** A file or block device that is open. */
export class OpenedFileStorage implements Storage {
  readonly name: string;
  readonly capabilities: StorageCapabilities;
  readonly #fd: number;
  readonly #directFd: number | undefined;
  readonly #transfers: FileTransfers;
  readonly #flusher: FileFlusher;
  readonly #zeroes: FileZeroes;
  readonly #inFlight = new InFlight();
  readonly #io: IoMode;
  readonly #noFlush: boolean;
  readonly #blockDevice: boolean;
  readonly #unlock: (() => void) | undefined;
  #size: number;
  /** Where the furthest write that was started ends. The file may be that long before `#size` says so. */
  #writtenEnd = 0;
  #closing: Promise<void> | undefined;

  constructor(name: string, parts: FileParts) {
    const { file, directFd } = parts;
    this.name = name;
    this.#fd = file.fd;
    this.#directFd = directFd;
    this.#size = file.size;
    this.#io = parts.io;
    this.#noFlush = parts.noFlush;
    this.#blockDevice = file.blockDevice;
    this.#unlock = parts.unlock;
    this.#transfers =
      directFd === undefined ? bufferedTransfers(file.fd, parts.io) : new DirectTransfers(directFd, file.fd);
    this.#flusher = new FileFlusher(file.fd, file.created ? name : undefined);
    this.#zeroes = new FileZeroes(file.fd, this.#transfers, directFd === undefined ? parts.io : "pool");
    this.capabilities = fileCapabilities(parts);
  }

  get descriptor(): number | undefined {
    return this.#directFd === undefined && this.#closing === undefined ? this.#fd : undefined;
  }

  size(): number {
    return this.#size;
  }

  read(at: number, into: Uint8Array): MaybePromise<void> {
    const refusal = this.#refuse(at, into.length);
    if (refusal !== undefined) return refusal;
    if (at + into.length > this.#size) return this.#readPastEnd(at, into);
    return this.#read(at, into);
  }

  write(at: number, from: Uint8Array): MaybePromise<void> {
    const refusal = this.#refuseWrite(at, from.length);
    if (refusal !== undefined) return refusal;
    if (from.length === 0) return undefined;
    try {
      const wait = this.#transfers.write(at, from);
      this.#writtenEnd = Math.max(this.#writtenEnd, at + from.length);
      if (wait !== undefined) return this.#inFlight.track(this.#finishWrite(wait, at, from.length));
    } catch (cause) {
      return Promise.reject(this.#writeError(cause, at, from.length));
    }
    if (at + from.length > this.#size) this.#size = at + from.length;
    return undefined;
  }

  writeZeroes(at: number, length: number, options: { readonly unmap?: boolean } = {}): MaybePromise<void> {
    const refusal = this.#refuseWrite(at, length);
    if (refusal !== undefined) return refusal;
    if (length === 0) return undefined;
    const inside = Math.min(at + length, this.#size) - at;
    try {
      const wait = inside > 0 ? this.#zeroes.zero(at, inside, options.unmap ?? false) : undefined;
      if (wait !== undefined) return this.#inFlight.track(this.#finishZeroes(wait, at, length));
      this.#growTo(at + length);
    } catch (cause) {
      return Promise.reject(this.#error(cause, "write zeros to", at, length));
    }
    return undefined;
  }

  discard(at: number, length: number): MaybePromise<void> {
    const refusal = this.#refuseChange(at, length);
    if (refusal !== undefined) return refusal;
    const inside = Math.min(at + length, this.#size) - at;
    if (inside <= 0 || !this.capabilities.discard) return undefined;
    try {
      const wait = this.#zeroes.discard(at, inside);
      return wait === undefined ? undefined : this.#watch(wait, "discard", at, inside);
    } catch (cause) {
      return Promise.reject(this.#error(cause, "discard", at, inside));
    }
  }

  flush(): MaybePromise<void> {
    const refusal = this.#refuse(0, 0);
    if (refusal !== undefined || this.#noFlush) return refusal;
    if (this.#io !== "sync") return this.#watch(this.#flusher.inPool(), "flush");
    try {
      this.#flusher.here();
    } catch (cause) {
      return Promise.reject(this.#error(cause, "flush"));
    }
    return undefined;
  }

  truncate(size: number): MaybePromise<void> {
    const refusal = this.#refuseChange(size, 0);
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
    const end = Math.min(at + length, this.#size);
    const calls = this.#blockDevice || end <= at ? undefined : nativeCalls();
    if (calls === undefined) {
      yield* dataUpTo(this.#size, at, length);
      return;
    }
    const tail = { offset: end, length: at + length - end, hole: true };
    for (const extent of mergeExtents(chain(dataHoleRuns(calls, this.#fd, at, end), tail))) {
      yield extent;
      // The consumer may have closed the storage; its descriptor number may be another file by now.
      if (this.#closing !== undefined) throw closedError(this.name);
    }
  }

  allocatedSize(): number | undefined {
    if (this.#closing !== undefined || this.#blockDevice) return undefined;
    const { blocks } = fs.fstatSync(this.#fd);
    return blocks * 512;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#inFlight.idle();
    try {
      if (this.#directFd !== undefined) fs.closeSync(this.#directFd);
    } finally {
      this.#unlock?.();
      fs.closeSync(this.#fd);
    }
  }

  #read(at: number, into: Uint8Array): MaybePromise<void> {
    try {
      const wait = this.#transfers.read(at, into);
      return wait === undefined ? undefined : this.#watch(wait, "read", at, into.length);
    } catch (cause) {
      return Promise.reject(this.#error(cause, "read", at, into.length));
    }
  }

  /** The part past the end needs no system call, so that the rest may still be answered at once. */
  #readPastEnd(at: number, into: Uint8Array): MaybePromise<void> {
    const { writable } = this.capabilities;
    // Somebody else may be making the file longer.
    if (!writable && !this.#blockDevice) this.#size = fs.fstatSync(this.#fd).size;
    const inside = Math.min(Math.max(this.#size - at, 0), into.length);
    into.fill(0, inside);
    if (inside === 0) return undefined;
    return this.#read(at, this.#directFd === undefined ? into.subarray(0, inside) : into);
  }

  async #finishWrite(wait: Promise<void>, at: number, length: number): Promise<void> {
    try {
      await wait;
    } catch (cause) {
      throw this.#writeError(cause, at, length);
    }
    this.#size = Math.max(this.#size, at + length);
  }

  /** Part of a failed write may have made the file longer; and zeros may have relied on it to make the file longer. */
  #writeError(cause: unknown, at: number, length: number): ZcowError {
    const error = this.#error(cause, "write", at, length);
    if (this.#blockDevice) return error;
    const { size } = fs.fstatSync(this.#fd);
    if (size < this.#size) fs.ftruncateSync(this.#fd, this.#size);
    else this.#size = size;
    return error;
  }

  async #finishZeroes(wait: Promise<void>, at: number, length: number): Promise<void> {
    try {
      await wait;
    } catch (cause) {
      throw this.#error(cause, "write zeros to", at, length);
    }
    this.#growTo(at + length);
  }

  /**
   * New bytes of a longer file are a hole. A write under way further on makes the file longer by itself, and setting
   * the length now could cut it off.
   */
  #growTo(end: number): void {
    if (end <= this.#size) return;
    if (end > this.#writtenEnd) this.#setLength(end);
    else this.#size = end;
  }

  #setLength(size: number): void {
    if (this.#blockDevice) {
      throw new ZcowError(
        "STORAGE_UNSUPPORTED",
        `${this.name} is a block device of ${this.#size} bytes and cannot change its length to ${size}`,
        {
          data: { path: this.name, value: size, limit: this.#size },
        },
      );
    }
    try {
      fs.ftruncateSync(this.#fd, size);
    } catch (cause) {
      throw this.#error(cause, "truncate", undefined, size);
    }
    this.#size = size;
    this.#writtenEnd = Math.min(this.#writtenEnd, size);
  }

  async #watch(work: Promise<void>, verb: string, offset?: number, length?: number): Promise<void> {
    this.#inFlight.begin();
    try {
      await work;
    } catch (cause) {
      throw this.#error(cause, verb, offset, length);
    } finally {
      this.#inFlight.end();
    }
  }

  #error(cause: unknown, verb: string, offset?: number, length?: number): ZcowError {
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

  #refuseChange(at: number, length: number): Promise<void> | undefined {
    if (!this.capabilities.writable) return Promise.reject(readOnlyError(this.name));
    return this.#refuse(at, length);
  }

  #refuseWrite(at: number, length: number): Promise<void> | undefined {
    if (this.#blockDevice && at + length > this.#size) {
      return Promise.reject(
        this.#error(Object.assign(new Error("past the end"), { code: "ENOSPC" }), "write", at, length),
      );
    }
    return this.#refuseChange(at, length);
  }
}

function* chain(runs: Iterable<StorageExtent>, last: StorageExtent): Generator<StorageExtent> {
  yield* runs;
  yield last;
}

function fileCapabilities({ file, directFd, writable, io }: FileParts): StorageCapabilities {
  // Only a writer pays for finding out what its file system can do.
  const calls = writable ? nativeCalls() : undefined;
  const punches = calls !== undefined && (file.blockDevice || canPunchHoles(calls, file.fd, file.size));
  return Object.freeze({
    writable,
    resizable: writable && !file.blockDevice,
    discard: punches,
    efficientZeroes: punches,
    // Asked late: it needs the native helper, which a short look at an image should not load.
    get holes() {
      return !file.blockDevice && nativeCalls() !== undefined;
    },
    synchronous: directFd === undefined && io !== "pool",
    alignment: directFd === undefined ? 1 : DIRECT_ALIGNMENT,
    durable: true,
  });
}
