import { isZcowError, type WarningSink, ZcowError } from "../base/errors.js";
import { parseReference } from "../block/image-reference.js";
import type { ImplicitFilePolicy } from "../block/open-policy.js";
import { openFileStorage } from "../storage/file-storage.js";
import { isRemoteName, openStorage } from "../storage/open-storage.js";
import { removeFile } from "../storage/remove-file.js";
import type { Storage } from "../storage/storage.js";
import type { BackingFacts } from "./backing-facts.js";
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
  /** Do not look at the backing file: it may be missing, and size and format must be given. Default false. */
  readonly unsafeBacking?: boolean;
  /** Whether the chain behind the backing file is opened with it, to see that it is whole. Default: it is not looked at. */
  readonly implicitFiles?: ImplicitFilePolicy;
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
  const backing = await backingOf(storage.name, options);
  const inherits = backing?.zones !== undefined && options.zone?.mode !== "none";
  const hooks = {
    ...(options.onWarning === undefined ? {} : { onWarning: options.onWarning }),
    ...(inherits ? { inheritedZones: backing.zones } : {}),
  };
  const complete = backing === undefined ? options : { ...options, size: options.size ?? backing.size };
  if (options.dataFile === undefined) return createQcow2(storage, complete, hooks);
  // All options are checked before a file is made that does not exist.
  (await import("./qcow2/create-validation.js")).planOptions(complete);
  const { storage: dataFile, made } = await openDataFile(options.dataFile, options.keepDataFile ?? false);
  try {
    await createQcow2(storage, complete, { ...hooks, dataFile });
  } catch (error) {
    await dataFile.close();
    if (made) await removeFile(dataFile.name).catch(() => undefined);
    throw error;
  }
  await dataFile.close();
}

async function backingOf(
  target: string,
  options: Extract<CreateImageOptions, { format: "qcow2" }>,
): Promise<BackingFacts | undefined> {
  if (options.backingFile === undefined) {
    if (options.backingFormat !== undefined) refuseUnknownFormat(options.backingFormat);
    return undefined;
  }
  const { readBackingFacts, backingFormatMissing } = await import("./backing-facts.js");
  if (options.unsafeBacking === true) {
    if (options.backingFormat === undefined) throw backingFormatMissing(options.backingFile);
    refuseUnknownFormat(options.backingFormat);
    return undefined;
  }
  const policy = options.implicitFiles === undefined ? {} : { implicitFiles: options.implicitFiles };
  return readBackingFacts(target, options, policy);
}

function refuseUnknownFormat(name: string): void {
  try {
    formatDriver(name);
  } catch (error) {
    if (!isZcowError(error)) throw error;
    throw new ZcowError("FORMAT_UNKNOWN", `Option backing_fmt: ${error.message}`, {
      data: { option: "backing_fmt", value: name },
      stockText: `Parameter 'backing-fmt' does not accept value '${name}'`,
    });
  }
}

async function openDataFile(name: string, keep: boolean): Promise<{ storage: Storage; made: boolean }> {
  const { path, protocol } = parseReference(name, "raw");
  if (protocol === "file" || isRemoteName(path)) {
    return keep ? { storage: await openStorage(path, { writable: true }), made: false } : openTarget(path, false);
  }
  throw new ZcowError(
    "PROTOCOL_UNKNOWN",
    `Option data_file: '${name}' needs the protocol ${protocol}, which is not known`,
    {
      data: { option: "data_file", value: name },
      stockText: `Unknown protocol '${protocol}'`,
    },
  );
}

/** An existing file is emptied only by the format, once it has found the options to be good. */
async function openTarget(path: string, exclusive: boolean): Promise<{ storage: Storage; made: boolean }> {
  // An export is there, or cannot be made.
  if (isRemoteName(path)) return { storage: await openStorage(path, { writable: true }), made: false };
  try {
    return { storage: await openFileStorage(path, { writable: true, create: true, exclusive: true }), made: true };
  } catch (error) {
    if (exclusive || !isZcowError(error, "ALREADY_EXISTS")) throw error;
    return { storage: await openFileStorage(path, { writable: true }), made: false };
  }
}
