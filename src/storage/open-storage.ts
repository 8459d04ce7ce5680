import { type FileStorageOptions, openFileStorage } from "./file-storage.js";
import type { Storage } from "./storage.js";

/** Names that start like this are addresses of exports of an NBD server. */
const NBD_NAME = /^nbds?(\+(tcp|unix))?:/;

/** True for names that stand for something else than a file of this machine. */
export function isRemoteName(name: string): boolean {
  return NBD_NAME.test(name);
}

/**
 * Opens what a name stands for: a file, or an export of an NBD server (`nbd://`, `nbds://`, `nbd+unix://`, `nbds+unix://`), for
 * which those options that concern files mean nothing. Fails as `openFileStorage`, or with `REMOTE_*`.
 */
export async function openStorage(name: string, options: FileStorageOptions): Promise<Storage> {
  if (!isRemoteName(name)) return openFileStorage(name, options);
  const { openNbdStorage } = await import("./nbd/nbd-storage.js");
  return openNbdStorage(name, options.writable === undefined ? {} : { writable: options.writable });
}
