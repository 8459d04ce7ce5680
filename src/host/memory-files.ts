import * as fs from "node:fs";

/** `f_type` of `statfs(2)` for tmpfs and ramfs. */
const MEMORY_FILE_SYSTEMS: ReadonlySet<number> = new Set([0x0102_1994, 0x8584_58f6]);

/** The file of an open descriptor is kept in memory and nowhere else, so that a read never waits for a disk. */
export function isInMemory(fd: number): boolean {
  if (process.platform !== "linux") return false;
  try {
    return MEMORY_FILE_SYSTEMS.has(fs.statfsSync(`/proc/self/fd/${fd}`).type);
  } catch {
    // Without /proc, nothing is known.
    return false;
  }
}
