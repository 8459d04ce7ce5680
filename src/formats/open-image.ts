import { type WarningSink, ZcowError } from "../base/errors.js";
import type { BlockDevice } from "../block/block-device.js";
import type { OpenDeviceOptions } from "../block/format-driver.js";
import { borrowedStorage } from "../storage/borrowed-storage.js";
import type { FileStorageOptions } from "../storage/file-storage.js";
import { openStorage as openNamed } from "../storage/open-storage.js";
import type { Storage } from "../storage/storage.js";
import { openRaw } from "./raw/device.js";
import { FORMATS, type FormatName, formatDriver, probeFormat, recogniseFormat } from "./registry.js";

/** Asks for the format to be recognised by content; see {@link OpenImageOptions.format}. */
export type FormatChoice = FormatName | "probe";

export interface OpenImageOptions extends OpenDeviceOptions {
  /**
   * The format of the image. `"probe"` recognises it by content, which is unsafe for images whose content somebody
   * else controls: a guest can write the mark of another format onto its raw disk.
   */
  readonly format: FormatChoice;
  /** How a path is opened; `writable` follows `readOnly`. */
  readonly file?: Omit<FileStorageOptions, "writable" | "create" | "exclusive" | "truncate">;
}

/**
 * Opens the disk image at `source`: a path, or a storage, which the device then owns.
 *
 * The device is writable unless `readOnly` is true. Zoned images give a `ZonedDevice`: test with `isZonedDevice`.
 * Fails with `FORMAT_UNKNOWN`, `NOT_FOUND`, `ACCESS_DENIED`, `LOCKED`, and the codes of the format (`QCOW2_*`, `ZONED_*`).
 * A storage that was passed in stays open when opening fails.
 */
export async function openImage(source: string | Storage, options: OpenImageOptions): Promise<BlockDevice> {
  requireFormat(source, options);
  const complete = withSurroundings(options);
  if (typeof source !== "string") return openStorage(source, complete);
  if (options.format !== "probe") formatDriver(options.format);
  const storage = await openNamed(source, { ...options.file, writable: options.readOnly !== true });
  try {
    return await openStorage(storage, complete);
  } catch (error) {
    await storage.close();
    throw error;
  }
}

/** What an image opens besides itself may be of every format, and its files are opened as its own. */
function withSurroundings(options: OpenImageOptions): OpenImageOptions {
  const { file, onWarning } = options;
  const warning = onWarning === undefined ? {} : { onWarning };
  return {
    formats: FORMATS,
    openFile: (path, { writable }) => openNamed(path, { ...warning, ...file, writable }),
    ...options,
  };
}

/** Fails as opening does when what is said to be of `format` is not. A storage stays open. */
export async function requireReadable(storage: Storage, format: FormatName): Promise<void> {
  if (format === "raw") return;
  const device = await openImage(borrowedStorage(storage), { format, readOnly: true, implicitFiles: "allow" });
  await device.close();
}

/** Callers without types may leave out what has no default. */
function requireFormat(source: string | Storage, options: Partial<OpenImageOptions> | undefined): void {
  if (options?.format !== undefined) return;
  const name = typeof source === "string" ? source : source.name;
  throw new ZcowError("FORMAT_UNKNOWN", `the format of ${name} was not given, and formats are not guessed`, {
    data: { option: "format", path: name },
  });
}

async function openStorage(storage: Storage, options: OpenImageOptions): Promise<BlockDevice> {
  const driver = options.format === "probe" ? await probeFormat(storage) : formatDriver(options.format);
  if (options.snapshot !== undefined && driver.name !== "qcow2")
    throw noSnapshots(storage, driver.name, options.snapshot);
  return options.format === "probe" && driver.name === "raw"
    ? openGuessedRaw(storage, options)
    : driver.open(storage, options);
}

function noSnapshots(storage: Storage, format: string, snapshot: string): ZcowError {
  return new ZcowError(
    "SNAPSHOT_NOT_FOUND",
    `${storage.name} is ${format}, which has no snapshots, none called '${snapshot}'`,
    {
      data: { path: storage.name, value: snapshot },
      stockText: "Can't find snapshot",
    },
  );
}

function openGuessedRaw(storage: Storage, options: OpenImageOptions): BlockDevice {
  warnAboutGuess(storage, options.onWarning);
  const readOnly = options.readOnly ?? !storage.capabilities.writable;
  return openRaw(storage, { readOnly, looksLikeImage: (head) => recogniseFormat(head).name !== "raw" });
}

/** What opening a disk says that is raw because nothing else was recognised. */
export function warnAboutGuess(storage: Storage, onWarning: WarningSink | undefined): void {
  onWarning?.({
    code: "FORMAT_GUESSED_RAW",
    message: `the format of ${storage.name} was not given and is guessed to be raw; whoever writes to a raw disk can make it look like another format`,
    data: { path: storage.name },
  });
}
