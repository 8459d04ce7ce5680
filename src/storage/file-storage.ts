import * as fs from "node:fs";
import { type WarningSink, ZcowError } from "../base/errors.js";
import { type ImageUse, lockImage } from "../host/image-lock.js";
import { nativeCalls } from "../host/native.js";
import { lockInProcess } from "../host/process-locks.js";
import { openDescriptor, openDirectly } from "./file-opening.js";
import type { IoMode } from "./file-transfers.js";
import { OpenedFileStorage } from "./opened-file-storage.js";
import type { Storage } from "./storage.js";
import { storageError } from "./storage-error.js";

export type { IoMode } from "./file-transfers.js";

/** How other users of the image are kept away. The locks are those that QEMU takes and honours. */
export interface LockOptions {
  /**
   * "write" keeps all other users out, "read" keeps writers out, "inspect" looks once that no writer is there and keeps
   * nobody out, for a short look at the metadata: a writer may come the moment after. Default: by `writable`.
   */
  readonly use?: "write" | "read" | "inspect";
  /** Fail with `STORAGE_UNSUPPORTED` where locks cannot be taken, in place of a warning. Default false. */
  readonly required?: boolean;
}

/** How a file is opened. */
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
  /**
   * `flush` does nothing: what was written outlives the process, not a crash of the host, and what the disk then refuses is not told.
   * Default false.
   */
  readonly noFlush?: boolean;
  /** Told when locks are not available (`LOCKS_UNAVAILABLE`). */
  readonly onWarning?: WarningSink;
}

function imageUse(options: FileStorageOptions): ImageUse | undefined {
  if (options.lock === false) return undefined;
  const asked = typeof options.lock === "object" ? options.lock.use : undefined;
  if (options.forceShare === true) return asked === "inspect" ? undefined : "shared";
  return asked ?? (options.writable === true ? "write" : "read");
}

/** Takes the locks that go with the descriptor, or those that the result of this call releases. */
function lockFile(path: string, fd: number, options: FileStorageOptions): (() => void) | undefined {
  const use = imageUse(options);
  if (use === undefined) return undefined;
  // Even for a short look: loading the helper costs 5 ms of CPU time, reading /proc/locks without it makes the kernel
  // wait 8 ms or more, and far longer on a busy machine.
  const result = lockImage(nativeCalls(), fd, path, use);
  if (result === "held") return undefined;
  if (result === "checked" && use === "inspect") return lockInProcess(fd, path, use);
  const message = `${path} is not locked: other programs are not kept from changing it`;
  if (typeof options.lock === "object" && options.lock.required === true) {
    throw new ZcowError("STORAGE_UNSUPPORTED", `${message}, and a lock was required`, {
      data: { path, option: "lock" },
    });
  }
  options.onWarning?.({ code: "LOCKS_UNAVAILABLE", message, data: { path } });
  return lockInProcess(fd, path, use);
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
  let unlock: (() => void) | undefined;
  try {
    unlock = lockFile(path, opened.fd, options);
    const emptied = options.truncate === true && !opened.blockDevice;
    if (emptied) fs.ftruncateSync(opened.fd, 0);
    const file = emptied ? { ...opened, size: 0 } : opened;
    const directFd = options.direct === true ? openDirectly(path, opened.fd, writable) : undefined;
    const { io = "auto", noFlush = false } = options;
    return new OpenedFileStorage(path, { file, directFd, writable, io, noFlush, unlock });
  } catch (cause) {
    unlock?.();
    fs.closeSync(opened.fd);
    throw storageError(cause, { verb: "open", name: path });
  }
}
