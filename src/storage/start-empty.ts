import { ZcowError } from "../base/errors.js";
import { isRemoteName } from "./open-storage.js";
import type { Storage } from "./storage.js";

/** Bytes at the start whose loss makes any image format unrecognisable. */
const MARK_BYTES = 4096;

/**
 * Makes `length` bytes of zeros of a storage, whatever it holds, for a new image. One that cannot become shorter (a block
 * device, a window on another storage) keeps what lies behind. Not durable yet, but for this: the old image's mark
 * is gone before anything else is, so a failure half-way does not leave what looks like the old image.
 *
 * Fails with `NO_SPACE` when the storage is shorter and cannot grow; then nothing has changed.
 */
export async function startEmpty(storage: Storage, length: number): Promise<void> {
  const { resizable, growsOnly = false } = storage.capabilities;
  if (resizable && !growsOnly) {
    await storage.truncate(0);
    if (length > 0) await storage.truncate(length);
    return;
  }
  const size = storage.size();
  if (resizable && length > size) await storage.truncate(length);
  else if (length > size) {
    throw new ZcowError("NO_SPACE", `${storage.name} has ${size} bytes, and the image needs ${length}`, {
      data: { path: storage.name, value: length, limit: size },
      ...(isRemoteName(storage.name) ? { stockText: "Cannot grow NBD nodes" } : {}),
    });
  }
  if (length === 0) return;
  await storage.writeZeroes(0, Math.min(length, MARK_BYTES));
  await storage.flush();
  await storage.writeZeroes(0, length, { unmap: true });
}
