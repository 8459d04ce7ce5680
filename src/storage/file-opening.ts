import * as fs from "node:fs";
import { ZcowError } from "../base/errors.js";
import { SECTOR_SIZE } from "../base/units.js";
import { directOpenFlag } from "../host/direct-io.js";
import { errnoOf, storageError } from "./storage-error.js";

/** How {@link openDescriptor} opens. It never empties a file: that must wait until the image is locked. */
export interface OpeningMode {
  readonly writable: boolean;
  /** Make the file when it does not exist. */
  readonly create: boolean;
  /** With `create`: the file must not exist. */
  readonly exclusive: boolean;
}

/** An open file or block device. */
export interface OpenDescriptor {
  readonly fd: number;
  /** Length in bytes when it was opened. */
  readonly size: number;
  readonly blockDevice: boolean;
  /** The file did not exist before. */
  readonly created: boolean;
}

function openFlags(mode: OpeningMode): number {
  const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL } = fs.constants;
  let flags = mode.writable ? O_RDWR : O_RDONLY;
  if (mode.create) flags |= O_CREAT;
  if (mode.create && mode.exclusive) flags |= O_EXCL;
  return flags;
}

function kindOf(stats: fs.Stats): string {
  if (stats.isDirectory()) return "a directory";
  if (stats.isFIFO()) return "a pipe";
  if (stats.isSocket()) return "a socket";
  if (stats.isCharacterDevice()) return "a character device";
  return "a special file";
}

function refuseNonDisk(path: string, stats: fs.Stats): void {
  if (stats.isFile() || stats.isBlockDevice()) return;
  throw new ZcowError("NOT_A_DISK", `${path} is ${kindOf(stats)}; an image is a regular file or a block device`, {
    data: { path },
    stockText: `'file' driver requires '${path}' to be a regular file`,
  });
}

/** Splits a Linux device number as `makedev(3)` packs it. */
function sysfsName(rdev: number): string {
  const low = rdev % 0x1_0000_0000;
  const high = Math.floor(rdev / 0x1_0000_0000);
  const major = ((low >>> 8) & 0xfff) + (high & 0xfffff000);
  const minor = (low & 0xff) + ((low >>> 12) & 0xfff00) + (high & 0xfff) * 0x10_0000;
  return `${major}:${minor}`;
}

/** Length of a block device in bytes; `stat` reports 0 for them. */
function blockDeviceSize(path: string, stats: fs.Stats): number {
  try {
    const sectors = fs.readFileSync(`/sys/dev/block/${sysfsName(stats.rdev)}/size`, "latin1");
    return Number.parseInt(sectors, 10) * SECTOR_SIZE;
  } catch (cause) {
    throw new ZcowError(
      "STORAGE_UNSUPPORTED",
      `cannot find the size of block device ${path}: this system has no /sys/dev/block entry for it`,
      {
        data: { path },
        cause,
      },
    );
  }
}

/**
 * Opens a regular file or block device, and nothing else: a pipe would hang, a directory has no bytes.
 *
 * Throws `NOT_FOUND`, `ALREADY_EXISTS`, `ACCESS_DENIED`, `NOT_A_DISK`, `IO_ERROR`.
 */
export function openDescriptor(path: string, mode: OpeningMode): OpenDescriptor {
  const operation = { verb: mode.create ? "create" : "open", name: path };
  let fd: number;
  let created: boolean;
  try {
    const before = fs.statSync(path, { throwIfNoEntry: false });
    if (before !== undefined) refuseNonDisk(path, before);
    created = before === undefined;
    fd = fs.openSync(path, openFlags(mode), 0o644);
  } catch (cause) {
    throw storageError(cause, operation);
  }
  try {
    const stats = fs.fstatSync(fd);
    refuseNonDisk(path, stats);
    const blockDevice = stats.isBlockDevice();
    return { fd, size: blockDevice ? blockDeviceSize(path, stats) : stats.size, blockDevice, created };
  } catch (cause) {
    fs.closeSync(fd);
    throw storageError(cause, operation);
  }
}

/**
 * Opens the file behind `fd` a second time for transfers that bypass the page cache.
 *
 * Throws `STORAGE_UNSUPPORTED` where the system or the file system cannot.
 */
export function openDirectly(path: string, fd: number, writable: boolean): number {
  const flag = directOpenFlag();
  const unsupported = (cause?: unknown): ZcowError =>
    new ZcowError(
      "STORAGE_UNSUPPORTED",
      `${path} cannot be opened for direct I/O: its file system or this system does not have it`,
      {
        data: { path, option: "direct" },
        cause,
        stockText: `Could not open '${path}': filesystem does not support O_DIRECT`,
      },
    );
  if (flag === undefined) throw unsupported();
  try {
    const access = writable ? fs.constants.O_RDWR : fs.constants.O_RDONLY;
    // The path may name another file by now; the descriptor does not.
    return fs.openSync(`/proc/self/fd/${fd}`, access | flag);
  } catch (cause) {
    if (errnoOf(cause) === "EINVAL") throw unsupported(cause);
    throw storageError(cause, { verb: "open", name: path });
  }
}
