import * as fs from "node:fs";
import { ZcowError } from "../base/errors.js";
import { ERRNO, type NativeCalls } from "./native.js";

/*
 * Image locks as QEMU's file driver takes them, so that neither program opens an image that the other is
 * changing. Nothing is stored in the image: the locks are open-file-description byte-range locks on bytes
 * that stand for permissions.
 *
 *   byte 100 + p, shared lock: "I use permission p"
 *   byte 200 + p, shared lock: "I do not let others use permission p"
 *
 * All locks are shared, so taking them never fails; afterwards each user looks for the opposite byte of another
 * user. Of two that start at the same moment both may give up, but never do both go on.
 */
const PERMISSION_BASE = 100;
const UNSHARED_BASE = 200;

interface Permission {
  readonly bit: number;
  /** As the stock texts call it. */
  readonly name: string;
}

const CONSISTENT_READ: Permission = { bit: 0, name: "consistent read" };
const WRITE: Permission = { bit: 1, name: "write" };
const RESIZE: Permission = { bit: 3, name: "resize" };

interface LockSet {
  readonly used: readonly Permission[];
  readonly unshared: readonly Permission[];
}

/**
 * What the image is opened for.
 *
 * - "write": keeps every other reader and writer out, unless they share by force.
 * - "read": many readers, no writer.
 * - "inspect": looks once that no writer is there and holds nothing, for a short look at the metadata.
 * - "shared": reads whatever others do (`-U`).
 */
export type ImageUse = "write" | "read" | "inspect" | "shared";

const LOCKS: Readonly<Record<ImageUse, LockSet>> = {
  write: { used: [CONSISTENT_READ, WRITE, RESIZE], unshared: [WRITE, RESIZE] },
  read: { used: [CONSISTENT_READ], unshared: [WRITE, RESIZE] },
  inspect: { used: [], unshared: [WRITE, RESIZE] },
  shared: { used: [CONSISTENT_READ], unshared: [] },
};

/* Commands and types of fcntl(2). */
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;

/** What came of asking for locks: held, looked at only, or this host cannot lock. */
export type LockResult = "held" | "checked" | "unavailable";

/** A `struct flock` for one byte. */
function byteLock(type: number, byte: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(32));
  view.setInt16(0, type, true);
  view.setBigInt64(8, BigInt(byte), true);
  view.setBigInt64(16, 1n, true);
  return new Uint8Array(view.buffer);
}

function conflictError(path: string, permission: Permission, shared: boolean): ZcowError {
  const lock = shared ? `shared "${permission.name}"` : `"${permission.name}"`;
  const found = shared
    ? `another process uses the ${permission.name} permission on it`
    : `another process does not share the ${permission.name} permission`;
  return new ZcowError("LOCKED", `cannot lock ${path}: ${found}`, {
    data: { path, structure: "image lock", field: permission.name },
    stockText: `Failed to get ${lock} lock\nIs another process using the image [${path}]?`,
  });
}

/** The refusal of a use because of somebody who writes (`shared`), or of a writer because of anybody else. */
export function writeConflict(path: string, shared: boolean): ZcowError {
  return conflictError(path, WRITE, shared);
}

type HeldElsewhere = (byte: number) => boolean;

function refuseConflicts(path: string, locks: LockSet, heldElsewhere: HeldElsewhere): void {
  for (const permission of locks.used) {
    if (heldElsewhere(UNSHARED_BASE + permission.bit)) throw conflictError(path, permission, false);
  }
  for (const permission of locks.unshared) {
    if (heldElsewhere(PERMISSION_BASE + permission.bit)) throw conflictError(path, permission, true);
  }
}

/** False when the kernel or the file system has no such locks. */
function takeLocks(calls: NativeCalls, fd: number, path: string, locks: LockSet): boolean {
  const bytes = [
    ...locks.used.map((permission) => ({ permission, byte: PERMISSION_BASE + permission.bit, shared: false })),
    ...locks.unshared.map((permission) => ({ permission, byte: UNSHARED_BASE + permission.bit, shared: true })),
  ];
  for (const { permission, byte, shared } of bytes) {
    if (calls.fcntl(fd, F_OFD_SETLK, byteLock(F_RDLCK, byte)) === 0) continue;
    const errno = calls.errno();
    if (errno === ERRNO.EAGAIN || errno === ERRNO.EACCES) throw conflictError(path, permission, shared);
    return false;
  }
  return true;
}

/** Asks the kernel whether another open file holds a lock on the byte. */
function askKernel(calls: NativeCalls, fd: number): HeldElsewhere {
  return (byte) => {
    const lock = byteLock(F_WRLCK, byte);
    if (calls.fcntl(fd, F_OFD_GETLK, lock) !== 0) return false;
    return new DataView(lock.buffer).getInt16(0, true) !== F_UNLCK;
  };
}

/** Looks in the kernel's public list of locks, which needs no native helper. */
function lookInLockList(fd: number): HeldElsewhere | undefined {
  try {
    const { dev, ino } = fs.fstatSync(fd, { bigint: true });
    const ranges = parseLockList(fs.readFileSync("/proc/locks", "latin1"), dev, ino);
    return (byte) => ranges.some(([first, last]) => first <= byte && byte <= last);
  } catch {
    return undefined;
  }
}

function deviceName(device: bigint): string {
  const major = (device >> 8n) & 0xfffn;
  const minor = (device & 0xffn) | ((device >> 12n) & 0xfff00n);
  return `${major.toString(16).padStart(2, "0")}:${minor.toString(16).padStart(2, "0")}`;
}

/**
 * The byte ranges that open file descriptions have locked on one file, from the text of `/proc/locks`.
 *
 * File systems without a disk of their own (major number 0) may show another device there than `stat` does;
 * for those the inode alone decides.
 */
export function parseLockList(text: string, device: bigint, inode: bigint): [first: number, last: number][] {
  const anonymous = ((device >> 8n) & 0xfffn) === 0n;
  const ranges: [number, number][] = [];
  for (const line of text.split("\n")) {
    const match = /^\d+: OFDLCK\s+\S+\s+\S+\s+-?\d+\s+([0-9a-f]+:[0-9a-f]+):(\d+)\s+(\d+)\s+(\d+|EOF)/.exec(line);
    if (match === null || match[2] !== String(inode)) continue;
    if (!anonymous && match[1] !== deviceName(device)) continue;
    ranges.push([Number(match[3]), match[4] === "EOF" ? Number.POSITIVE_INFINITY : Number(match[4])]);
  }
  return ranges;
}

/**
 * Locks an open image for `use`. The locks go when `fd` is closed.
 *
 * Without native calls, and for "inspect", it looks for conflicting locks but leaves none.
 * Throws `LOCKED` when another user is in the way.
 */
export function lockImage(calls: NativeCalls | undefined, fd: number, path: string, use: ImageUse): LockResult {
  const locks = LOCKS[use];
  if (use !== "inspect" && calls !== undefined && takeLocks(calls, fd, path, locks)) {
    refuseConflicts(path, locks, askKernel(calls, fd));
    return "held";
  }
  const listed = calls === undefined ? lookInLockList(fd) : askKernel(calls, fd);
  if (listed === undefined) return "unavailable";
  refuseConflicts(path, locks, listed);
  return "checked";
}
