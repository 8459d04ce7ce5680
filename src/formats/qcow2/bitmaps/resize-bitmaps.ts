import { isPromise } from "../../../base/maybe-promise.js";
import { borrowedStorage } from "../../../storage/borrowed-storage.js";
import type { Storage } from "../../../storage/storage.js";
import type { Qcow2Header } from "../header.js";
import { readHeader } from "../header-read.js";
import { type OpenEngineOptions, openEngine } from "../open.js";
import { BITMAP_IN_USE, encodeDirectory } from "./bitmap-directory.js";
import { ImageBitmaps } from "./image-bitmaps.js";

/**
 * Runs `change`, which makes the disk `size` bytes large, and gives every bitmap that size.
 *
 *     step                                   | a crash in this step leaves
 *     ---------------------------------------+-----------------------------------------------------------
 *     every bitmap marked `in use`; flush    | bitmaps as they were, or inconsistent ones
 *     the disk changed                       | inconsistent bitmaps
 *     bitmaps of the new size stored, as at  | inconsistent bitmaps, or those of the new size
 *     the end of every use of the image      |
 *
 * Throws `BITMAP_INCONSISTENT`, before anything is changed, when the bits of one cannot be used, and what `change` throws.
 */
export async function keepingBitmaps(
  storage: Storage,
  header: Qcow2Header,
  size: number,
  opening: Pick<OpenEngineOptions, "implicitFiles" | "passphrase">,
  change: () => Promise<void>,
): Promise<void> {
  if (header.bitmaps === undefined) return change();
  const before = await ImageBitmaps.load(storage, header);
  const entries = before.storedEntries().map((entry) => ({ ...entry, flags: entry.flags | BITMAP_IN_USE }));
  const written = storage.write(header.bitmaps.offset, encodeDirectory(entries));
  if (isPromise(written)) await written;
  const flushed = storage.flush();
  if (isPromise(flushed)) await flushed;
  await change();
  const bitmaps = before.resized(await readHeader(storage, { writable: true }), size);
  const engine = await openEngine(borrowedStorage(storage), { ...opening, readOnly: false, bitmaps });
  await engine.close();
}
