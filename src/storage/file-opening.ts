import * as fs from "node:fs";
import { ZcowError } from "../base/errors.js";
import { SECTOR_SIZE } from "../base/units.js";
import { storageError } from "./storage-error.js";

/** How {@link openDescriptor} opens. */
export interface OpeningMode {
  readonly writable: boolean;
  /** Make the file when it does not exist. */
  readonly create: boolean;
  /** With `create`: the file must not exist. */
  readonly exclusive: boolean;
  /** Empty the file. */
  readonly truncate: boolean;
}

/** An open file or block device. */
export interface OpenDescriptor {
  readonly fd: number;
  /** Length in bytes when it was opened. */
  readonly size: number;
  readonly blockDevice: boolean;
}

function openFlags(mode: OpeningMode, extraFlags: number): number {
  const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL, O_TRUNC } = fs.constants;
  let flags = mode.writable ? O_RDWR : O_RDONLY;
  if (mode.create) flags |= O_CREAT;
  if (mode.create && mode.exclusive) flags |= O_EXCL;
  if (mode.truncate) flags |= O_TRUNC;
  return flags | extraFlags;
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
    stockText: stats.isCharacterDevice()
      ? `'${path}' is not a regular file or block device`
      : `'file' driver requires '${path}' to be a regular file`,
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
 * `extraFlags` are further `open(2)` flags.
 *
 * Throws `NOT_FOUND`, `ALREADY_EXISTS`, `ACCESS_DENIED`, `NOT_A_DISK`, `IO_ERROR`.
 */
export function openDescriptor(path: string, mode: OpeningMode, extraFlags = 0): OpenDescriptor {
  const operation = { verb: "open", name: path };
  let fd: number;
  try {
    const before = fs.statSync(path, { throwIfNoEntry: false });
    if (before !== undefined) refuseNonDisk(path, before);
    fd = fs.openSync(path, openFlags(mode, extraFlags), 0o644);
  } catch (cause) {
    throw storageError(cause, operation);
  }
  try {
    const stats = fs.fstatSync(fd);
    refuseNonDisk(path, stats);
    const blockDevice = stats.isBlockDevice();
    return { fd, size: blockDevice ? blockDeviceSize(path, stats) : stats.size, blockDevice };
  } catch (cause) {
    fs.closeSync(fd);
    throw storageError(cause, operation);
  }
}
