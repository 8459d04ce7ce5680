import * as fs from "node:fs";
import { type WarningSink, ZcowError } from "../base/errors.js";
import type { MaybePromise } from "../base/maybe-promise.js";
import { MiB } from "../base/units.js";
import { dataHoleRuns } from "../host/data-hole-map.js";
import { DIRECT_ALIGNMENT } from "../host/direct-io.js";
import { type ImageUse, lockImage } from "../host/image-lock.js";
import { nativeCalls } from "../host/native.js";
import { type CallPlace, canPunchHoles, punchHole, zeroRange } from "../host/punch-hole.js";
import { DirectTransfers } from "./direct-transfers.js";
import { dataUpTo, mergeExtents } from "./extent-runs.js";
import { FileFlusher } from "./file-flush.js";
import { type OpenDescriptor, openDescriptor, openDirectly } from "./file-opening.js";
import { bufferedTransfers, type FileTransfers, type IoMode } from "./file-transfers.js";
import type { Storage, StorageCapabilities, StorageExtent } from "./storage.js";
import { closedError, rangeError, readOnlyError, storageError } from "./storage-error.js";

export type { IoMode } from "./file-transfers.js";

/** Written over and over where the system cannot make zeros itself. */
const ZEROS_SIZE = MiB;

export interface LockOptions {
  /**
   * "write" keeps all other users out, "read" keeps writers out, "inspect" looks once that no writer is there and holds
   * no lock (cheaper, for a short look at the metadata). Default: by `writable`.
   */
  readonly use?: "write" | "read" | "inspect";
  /** Fail with `STORAGE_UNSUPPORTED` where locks cannot be taken, in place of a warning. Default false. */
  readonly required?: boolean;
}

export interface FileStorageOptions {
  /** Default false: reading only. */
  readonly writable?: boolean;
  /** Make the file when it does not exist. Default false. */
  readonly create?: boolean;
  /** With `create`: refuse a file that exists (`ALREADY_EXISTS`). Default false. */
  readonly exclusive?: boolean;
  /** Empty the file once it is locked. Default false. */
  readonly truncate?: boolean;
  /**
   * Bypass the page cache. All transfers go through the thread pool; those aligned to `capabilities.alignment`
   * go to the disk, others through the cache. Default false.
   */
  readonly direct?: boolean;
  /** Image locks that QEMU honours too. Default true. */
  readonly lock?: boolean | LockOptions;
  /** Read while another process writes; what is read may be inconsistent. Not with `writable`. Default false. */
  readonly forceShare?: boolean;
  /**
   * "sync" makes every call on this thread, "pool" every transfer in the thread pool; "auto" (the default)
   * reads on this thread while the bytes come from the page cache, and writes on this thread.
   */
  readonly io?: IoMode;
  /** Told when locks are not available (`LOCKS_UNAVAILABLE`). */
  readonly onWarning?: WarningSink;
}

interface FileParts {
  readonly file: OpenDescriptor;
  readonly directFd: number | undefined;
}

class FileStorage implements Storage {
  readonly name: string;
  readonly capabilities: StorageCapabilities;
  readonly #fd: number;
  readonly #directFd: number | undefined;
  readonly #transfers: FileTransfers;
  readonly #flusher: FileFlusher;
  readonly #io: IoMode;
  readonly #blockDevice: boolean;
  #size: number;
  #inFlight = 0;
  #closing: Promise<void> | undefined;
  #wakeCloser: (() => void) | undefined;

  constructor(name: string, parts: FileParts, options: FileStorageOptions) {
    const { file, directFd } = parts;
    this.name = name;
    this.#fd = file.fd;
    this.#directFd = directFd;
    this.#size = file.size;
    this.#io = options.io ?? "auto";
    this.#blockDevice = file.blockDevice;
    this.#transfers =
      directFd === undefined ? bufferedTransfers(file.fd, this.#io) : new DirectTransfers(directFd, file.fd);
    this.#flusher = new FileFlusher(file.fd, file.created ? name : undefined);
    this.capabilities = fileCapabilities(parts, options);
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
    const refusal = this.#refuseChange(at, from.length);
    if (refusal !== undefined) return refusal;
    if (from.length === 0) return undefined;
    try {
      const wait = this.#transfers.write(at, from);
      if (wait !== undefined) return this.#track(this.#finishWrite(wait, at, from.length));
    } catch (cause) {
      return Promise.reject(this.#writeError(cause, at, from.length));
    }
    if (at + from.length > this.#size) this.#size = at + from.length;
    return undefined;
  }

  writeZeroes(at: number, length: number, options: { readonly unmap?: boolean } = {}): MaybePromise<void> {
    const refusal = this.#refuseChange(at, length);
    if (refusal !== undefined) return refusal;
    if (length === 0) return undefined;
    try {
      const inside = Math.min(at + length, this.#size) - at;
      const zeroed = inside <= 0 || this.#zeroByCall(at, inside, options.unmap ?? false);
      if (zeroed === true) {
        this.#growTo(at + length);
        return undefined;
      }
      return this.#track(this.#finishZeroes(zeroed, at, inside, length));
    } catch (cause) {
      return Promise.reject(this.#error(cause, "write zeros to", at, length));
    }
  }

  discard(at: number, length: number): MaybePromise<void> {
    const refusal = this.#refuseChange(at, length);
    if (refusal !== undefined) return refusal;
    const inside = Math.min(at + length, this.#size) - at;
    const calls = this.capabilities.discard ? nativeCalls() : undefined;
    if (inside <= 0 || calls === undefined) return undefined;
    try {
      const punched = punchHole(calls, this.#fd, at, inside, this.#place());
      if (typeof punched === "boolean") return undefined;
      return this.#track(this.#named(punched, "discard", at, inside));
    } catch (cause) {
      return Promise.reject(this.#error(cause, "discard", at, inside));
    }
  }

  flush(): MaybePromise<void> {
    const refusal = this.#refuse(0, 0);
    if (refusal !== undefined) return refusal;
    if (this.#io !== "sync") return this.#track(this.#named(this.#flusher.inPool(), "flush"));
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
    if (this.#inFlight > 0) {
      await new Promise<void>((resolve) => {
        this.#wakeCloser = resolve;
      });
    }
    try {
      if (this.#directFd !== undefined) fs.closeSync(this.#directFd);
    } finally {
      fs.closeSync(this.#fd);
    }
  }

  #read(at: number, into: Uint8Array): MaybePromise<void> {
    try {
      const wait = this.#transfers.read(at, into);
      return wait === undefined ? undefined : this.#track(this.#named(wait, "read", at, into.length));
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

  /** Part of a failed write may have made the file longer. */
  #writeError(cause: unknown, at: number, length: number): ZcowError {
    if (!this.#blockDevice) this.#size = Math.max(this.#size, fs.fstatSync(this.#fd).size);
    return this.#error(cause, "write", at, length);
  }

  /** True when the system made the zeros; false when they have to be written. */
  #zeroByCall(at: number, length: number, unmap: boolean): MaybePromise<boolean> {
    const calls = nativeCalls();
    if (calls === undefined) return false;
    const place = this.#place();
    const zero = (): MaybePromise<boolean> => zeroRange(calls, this.#fd, at, length, place);
    if (!unmap) return zero();
    const punched = punchHole(calls, this.#fd, at, length, place);
    if (typeof punched === "boolean") return punched || zero();
    return punched.then((done) => done || zero());
  }

  async #finishZeroes(zeroed: MaybePromise<boolean>, at: number, inside: number, length: number): Promise<void> {
    try {
      if (!(await zeroed)) await this.#writeZeros(at, inside);
    } catch (cause) {
      throw this.#error(cause, "write zeros to", at, length);
    }
    this.#growTo(at + length);
  }

  async #writeZeros(at: number, length: number): Promise<void> {
    const zeros = new Uint8Array(Math.min(ZEROS_SIZE, length));
    for (let done = 0; done < length; done += zeros.length) {
      const wait = this.#transfers.write(at + done, zeros.subarray(0, Math.min(zeros.length, length - done)));
      if (wait !== undefined) await wait;
    }
  }

  /** New bytes of a longer file are a hole. */
  #growTo(end: number): void {
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

  #place(): CallPlace {
    if (this.#io === "auto") return "auto";
    return this.#io === "sync" ? "here" : "pool";
  }

  async #named(work: Promise<unknown>, verb: string, offset?: number, length?: number): Promise<void> {
    try {
      await work;
    } catch (cause) {
      throw this.#error(cause, verb, offset, length);
    }
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
}

function* chain(runs: Iterable<StorageExtent>, last: StorageExtent): Generator<StorageExtent> {
  yield* runs;
  yield last;
}

function fileCapabilities({ file, directFd }: FileParts, options: FileStorageOptions): StorageCapabilities {
  const writable = options.writable ?? false;
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
    synchronous: directFd === undefined && options.io !== "pool",
    alignment: directFd === undefined ? 1 : DIRECT_ALIGNMENT,
    durable: true,
  });
}

function imageUse(options: FileStorageOptions): ImageUse | undefined {
  if (options.lock === false) return undefined;
  if (options.forceShare === true) return "shared";
  const asked = typeof options.lock === "object" ? options.lock.use : undefined;
  return asked ?? (options.writable === true ? "write" : "read");
}

function lockFile(path: string, fd: number, options: FileStorageOptions): void {
  const use = imageUse(options);
  if (use === undefined) return;
  const result = lockImage(use === "inspect" ? undefined : nativeCalls(), fd, path, use);
  if (result === "held" || (result === "checked" && use === "inspect")) return;
  const message = `${path} is not locked: other programs are not kept from changing it`;
  if (typeof options.lock === "object" && options.lock.required === true) {
    throw new ZcowError("STORAGE_UNSUPPORTED", `${message}, and a lock was required`, {
      data: { path, option: "lock" },
    });
  }
  options.onWarning?.({ code: "LOCKS_UNAVAILABLE", message, data: { path } });
}

function refuseContradictions(path: string, options: FileStorageOptions): void {
  const writable = options.writable ?? false;
  const wrong = (["create", "truncate"] as const).find((option) => options[option] === true && !writable);
  if (wrong !== undefined) {
    throw new ZcowError(
      "INVALID_ARGUMENT",
      `${wrong} needs a writable storage, and ${path} is to be opened for reading`,
      {
        data: { path, option: wrong },
      },
    );
  }
  if (options.forceShare === true && writable) {
    throw new ZcowError(
      "INVALID_ARGUMENT",
      `${path} cannot be shared by force and written: only readers can ignore locks`,
      {
        data: { path, option: "forceShare" },
        stockText: "force-share=on can only be used with read-only images",
      },
    );
  }
}

/**
 * Opens a regular file or block device.
 *
 * Errors: `NOT_FOUND`, `ALREADY_EXISTS`, `ACCESS_DENIED`, `NOT_A_DISK`, `LOCKED`, `STORAGE_UNSUPPORTED` (direct I/O, a
 * required lock, the size of a block device on this system), `INVALID_ARGUMENT` (options that contradict each other), `IO_ERROR`.
 */
export async function openFileStorage(path: string, options: FileStorageOptions = {}): Promise<Storage> {
  refuseContradictions(path, options);
  const writable = options.writable ?? false;
  const opened = openDescriptor(path, {
    writable,
    create: options.create ?? false,
    exclusive: options.exclusive ?? false,
  });
  try {
    lockFile(path, opened.fd, options);
    const emptied = options.truncate === true && !opened.blockDevice;
    if (emptied) fs.ftruncateSync(opened.fd, 0);
    const file = emptied ? { ...opened, size: 0 } : opened;
    const directFd = options.direct === true ? openDirectly(path, opened.fd, writable) : undefined;
    return new FileStorage(path, { file, directFd }, options);
  } catch (cause) {
    fs.closeSync(opened.fd);
    throw storageError(cause, { verb: "open", name: path });
  }
}
