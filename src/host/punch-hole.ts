import { MiB } from "../base/units.js";
import { ERRNO, type NativeCalls, systemError } from "./native.js";

/* Modes of fallocate(2). */
const KEEP_SIZE = 0x01;
const PUNCH_HOLE = 0x02;
const ZERO_RANGE = 0x10;

/** Freeing the extents of a large range takes long enough to be felt: those go to the thread pool. */
const STAY_HERE_LIMIT = MiB;

/** Where a call may run: "auto" decides by its length. */
export type CallPlace = "auto" | "here" | "pool";

function unsupported(errno: number): boolean {
  return errno === ERRNO.EOPNOTSUPP || errno === ERRNO.ENOSYS || errno === ERRNO.EINVAL;
}

/** False when the file system cannot do it; throws like `node:fs` for any other failure. */
function allocateHere(calls: NativeCalls, fd: number, mode: number, at: number, length: number): boolean {
  for (;;) {
    if (calls.fallocate(fd, mode, at, length) === 0) return true;
    const errno = calls.errno();
    if (errno === ERRNO.EINTR) continue;
    if (unsupported(errno)) return false;
    throw systemError(errno, "fallocate");
  }
}

function allocate(
  calls: NativeCalls,
  fd: number,
  mode: number,
  at: number,
  length: number,
  place: CallPlace,
): boolean | Promise<boolean> {
  if (place === "here" || (place === "auto" && length <= STAY_HERE_LIMIT)) {
    return allocateHere(calls, fd, mode, at, length);
  }
  return new Promise((resolve, reject) => {
    calls.fallocateInPool(fd, mode, at, length, (_error, result) => {
      if (result === 0) {
        resolve(true);
        return;
      }
      // The reason stayed with the thread that failed; the call may be repeated, and fails here the same way.
      try {
        resolve(allocateHere(calls, fd, mode, at, length));
      } catch (error) {
        reject(error instanceof Error ? error : new Error(String(error)));
      }
    });
  });
}

/**
 * Gives the space of [at, at + length) back to the host; it then reads as zeros. The size stays. `length` is
 * above 0. False when the file system cannot do it.
 */
export function punchHole(
  calls: NativeCalls,
  fd: number,
  at: number,
  length: number,
  place: CallPlace,
): boolean | Promise<boolean> {
  return allocate(calls, fd, PUNCH_HOLE | KEEP_SIZE, at, length, place);
}

/**
 * Makes [at, at + length) read as zeros and keeps its space reserved. The size stays. `length` is above 0.
 * False when the file system cannot do it (tmpfs cannot).
 */
export function zeroRange(
  calls: NativeCalls,
  fd: number,
  at: number,
  length: number,
  place: CallPlace,
): boolean | Promise<boolean> {
  return allocate(calls, fd, ZERO_RANGE | KEEP_SIZE, at, length, place);
}

/** Whether the file system can punch holes, tried past the end of the file where nothing can be lost. */
export function canPunchHoles(calls: NativeCalls, fd: number, size: number): boolean {
  const page = 65536;
  const pastEnd = Math.ceil((size + 1) / page) * page;
  return calls.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, pastEnd, page) === 0;
}
