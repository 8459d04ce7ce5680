import { isZcowError, type WarningSink, ZcowError } from "../base/errors.js";
import { openFileStorage } from "../storage/file-storage.js";
import { removeFile } from "../storage/remove-file.js";
import type { Storage } from "../storage/storage.js";
import type { CreateQcow2Options } from "./qcow2/create-options.js";
import { type CreateRawOptions, createRaw } from "./raw/create.js";
import { formatDriver } from "./registry.js";

/** The format of a new image and the options of that format. */
export type CreateImageOptions =
  | ({ readonly format: "qcow2" } & CreateQcow2Options & CreateImageExtras)
  | ({ readonly format: "raw" } & CreateRawOptions & CreateImageExtras);

/** Options of creation in any format. */
export interface CreateImageExtras {
  /** Refuse to replace a file that exists (`ALREADY_EXISTS`). Default false. */
  readonly exclusive?: boolean;
  /** Receives what is worth telling, such as a limit that was clamped. Default: dropped. */
  readonly onWarning?: WarningSink;
}

/**
 * Makes a new image at `target`: a path, or a storage, which stays the caller's. What was there is replaced. The
 * image is durable when this resolves. A file that this call made is removed again when it fails.
 *
 * Fails with `FORMAT_UNKNOWN`, `FORMAT_NOT_CREATABLE`, `INVALID_ARGUMENT`, the codes of the storage (`NOT_FOUND`, `ACCESS_DENIED`, `NO_SPACE`,
 * `LOCKED`) and of the format (`QCOW2_*`, `ZONED_*`).
 */
export async function createImage(target: string | Storage, options: CreateImageOptions): Promise<void> {
  requireCreatable(options.format);
  if (typeof target !== "string") return fill(target, options);
  const { storage, made } = await openTarget(target, options.exclusive ?? false);
  try {
    await fill(storage, options);
  } catch (error) {
    await storage.close();
    if (made) await removeFile(target).catch(() => undefined);
    throw error;
  }
  await storage.close();
}

/** Fails with `FORMAT_UNKNOWN` or `FORMAT_NOT_CREATABLE`. */
export function requireCreatable(format: string): void {
  const driver = formatDriver(format);
  if (driver.creatable) return;
  throw new ZcowError("FORMAT_NOT_CREATABLE", `images of the format '${format}' can be read, but not made`, {
    data: { option: "format", value: format },
    stockText: `Format driver '${format}' does not support image creation`,
  });
}

async function fill(storage: Storage, options: CreateImageOptions): Promise<void> {
  if (options.format === "raw") return createRaw(storage, options);
  const { createQcow2 } = await import("./qcow2/create.js");
  return createQcow2(storage, options, options.onWarning === undefined ? {} : { onWarning: options.onWarning });
}

/** An existing file is emptied only by the format, once it has found the options to be good. */
async function openTarget(path: string, exclusive: boolean): Promise<{ storage: Storage; made: boolean }> {
  try {
    return { storage: await openFileStorage(path, { writable: true, create: true, exclusive: true }), made: true };
  } catch (error) {
    if (exclusive || !isZcowError(error, "ALREADY_EXISTS")) throw error;
    return { storage: await openFileStorage(path, { writable: true }), made: false };
  }
}
