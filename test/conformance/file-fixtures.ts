import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type FileStorageOptions, openFileStorage } from "../../src/storage/file-storage.js";
import type { StorageFactory } from "./storage-suite.js";

/** Folders on different file systems: the one for temporary files, and one in memory where there is one. */
export const FOLDERS: readonly string[] = [tmpdir(), "/dev/shm"].filter((folder) => existsSync(folder));

/** Makes file storages in a folder of their own below `folder`. */
export function fileFactory(folder: string, options: FileStorageOptions): StorageFactory {
  return async (initial) => {
    const directory = await mkdtemp(join(folder, "zcow-storage-"));
    const path = join(directory, "disk");
    await writeFile(path, initial);
    return {
      storage: await openFileStorage(path, { ...options, writable: true }),
      cleanUp: () => rm(directory, { recursive: true }),
    };
  };
}
