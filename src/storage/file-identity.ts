import * as fs from "node:fs";

/**
 * What tells the file at `path` from all others, by whatever name it goes: links lead to the same. Files that cannot be
 * looked at, and storages that are no files, are told apart by name.
 */
export function fileIdentity(path: string): string {
  try {
    const { dev, ino } = fs.statSync(path, { bigint: true });
    return `file ${dev}:${ino}`;
  } catch {
    return `name ${path}`;
  }
}
