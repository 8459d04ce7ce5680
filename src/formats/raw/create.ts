import { ZcowError } from "../../base/errors.js";
import { alignUp } from "../../base/integers.js";
import { SECTOR_SIZE } from "../../base/units.js";
import { startEmpty } from "../../storage/start-empty.js";
import type { Storage } from "../../storage/storage.js";

/** `off`: a hole; `falloc` and `full`: zeros are written, so that the space is taken. */
export const RAW_PREALLOCATIONS = ["off", "falloc", "full"] as const;
/** How the space of a new raw disk is taken. */
export type RawPreallocation = (typeof RAW_PREALLOCATIONS)[number];

/** How a new raw disk is made. */
export interface CreateRawOptions {
  /** Bytes; rounded up to whole sectors of 512. */
  readonly size: number;
  /** Default `"off"`. */
  readonly preallocation?: RawPreallocation;
}

/**
 * Makes `storage` a raw disk of zeros, replacing what it holds, and makes that durable.
 *
 * Fails with `INVALID_ARGUMENT` for a size that is not a safe integer of bytes, and with the codes of the storage.
 */
export async function createRaw(storage: Storage, options: CreateRawOptions): Promise<void> {
  const size = alignUp(options.size, SECTOR_SIZE);
  if (!Number.isSafeInteger(options.size) || !Number.isSafeInteger(size) || options.size < 0) {
    throw new ZcowError("INVALID_ARGUMENT", `size is ${options.size}; a raw disk has 0 to 2^53-1 bytes`, {
      data: { field: "size", value: options.size, limit: Number.MAX_SAFE_INTEGER },
    });
  }
  await startEmpty(storage, size);
  if (size > 0 && (options.preallocation ?? "off") !== "off") await storage.writeZeroes(0, size, { unmap: false });
  await storage.flush();
}
