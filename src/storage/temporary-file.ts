import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openFileStorage } from "./file-storage.js";
import type { Storage } from "./storage.js";

/** An empty file in the folder of temporary files that has no name any more: it is gone with whoever has it open. */
export async function openTemporaryFile(): Promise<Storage> {
  const folder = mkdtempSync(join(tmpdir(), "zcow-"));
  try {
    return await openFileStorage(join(folder, "overlay"), { writable: true, create: true, lock: false });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
