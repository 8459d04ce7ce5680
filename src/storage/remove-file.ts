import { unlink } from "node:fs/promises";
import { storageError } from "./storage-error.js";

/** Removes the file at `path`. Fails with the codes of the storage (`NOT_FOUND`, `ACCESS_DENIED`, `IO_ERROR`). */
export async function removeFile(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (cause) {
    throw storageError(cause, { verb: "remove", name: path });
  }
}
