import { type WarningSink, ZcowError } from "../base/errors.js";
import type { ImplicitFilePolicy } from "../block/open-policy.js";
import { type FormatChoice, requireReadable } from "../formats/open-image.js";
import { type CheckOptions, checkQcow2 } from "../formats/qcow2/check/check.js";
import type { CheckResult } from "../formats/qcow2/check/check-result.js";
import type { Qcow2Header } from "../formats/qcow2/header.js";
import { readHeader } from "../formats/qcow2/header-read.js";
import type { ReferencedFiles } from "../formats/qcow2/referenced-files.js";
import { sessionOf, unfinishedSession } from "../formats/qcow2/session.js";
import { FORMATS, type FormatName, formatDriver, probeFormat } from "../formats/registry.js";
import { openStorage } from "../storage/open-storage.js";
import type { Storage } from "../storage/storage.js";

/** Which image is checked, and what is mended. */
export interface CheckImageOptions extends CheckOptions {
  readonly format: FormatChoice;
  /** Ignore the locks of other processes; not together with `repair`. */
  readonly forceShare?: boolean;
  /**
   * Open the backing image and the external data file too, and fail when they cannot be: what they hold is not looked at, but
   * an image without them is of no use. Default: they are left alone.
   */
  readonly implicitFiles?: ImplicitFilePolicy;
  /** Told when the image is in use, or its writer was killed, so that leaks are no wonder. */
  readonly onWarning?: WarningSink;
}

/** What a check found, and in which format. */
export interface ImageCheck extends CheckResult {
  readonly format: string;
}

/**
 * Checks the metadata of an image and, when asked, repairs it. A storage that was passed in stays open.
 *
 * Fails with `CHECK_UNSUPPORTED` for formats without metadata, and as `checkQcow2` and `openImage` do.
 */
export async function checkImage(source: string | Storage, options: CheckImageOptions): Promise<ImageCheck> {
  if (typeof source !== "string") return checkStorage(source, options);
  if (options.format !== "probe") formatDriver(options.format);
  const storage = await openStorage(source, {
    writable: options.repair !== undefined,
    forceShare: options.forceShare ?? false,
  });
  try {
    return await checkStorage(storage, options);
  } finally {
    await storage.close();
  }
}

async function checkStorage(storage: Storage, options: CheckImageOptions): Promise<ImageCheck> {
  const driver = options.format === "probe" ? await probeFormat(storage) : formatDriver(options.format);
  if (driver.name !== "qcow2") {
    await requireReadable(storage, driver.name as FormatName);
    throw new ZcowError("CHECK_UNSUPPORTED", `${storage.name} is ${driver.name}, which has no metadata to check`, {
      data: { path: storage.name, value: driver.name },
      stockText: "This image format does not support checks",
    });
  }
  if (options.repair !== undefined && storage.capabilities.writable) {
    const { resumeBeforeRepair } = await import("../formats/qcow2/resume-session.js");
    await resumeBeforeRepair(storage);
  }
  // A header that cannot be read is for the check to tell of.
  const header = await readHeader(storage, { mode: "check" }).catch(() => undefined);
  if (header !== undefined && sessionOf(header) !== undefined) options.onWarning?.(unfinishedSession(storage.name));
  const files = header === undefined ? undefined : await openSurroundings(storage, header, options);
  try {
    return { ...(await checkQcow2(storage, options)), format: driver.name };
  } finally {
    await files?.data?.close();
    await files?.backing?.close();
  }
}

/** The files that the header names, when they are asked for. */
async function openSurroundings(
  storage: Storage,
  header: Qcow2Header,
  options: CheckImageOptions,
): Promise<ReferencedFiles | undefined> {
  const { forceShare = false, implicitFiles, repair } = options;
  if (implicitFiles === undefined || (header.backingFileName === undefined && header.dataFileName === undefined))
    return undefined;
  const { openReferencedFiles } = await import("../formats/qcow2/referenced-files.js");
  const surroundings = {
    writable: repair !== undefined,
    openFile: (path: string, { writable }: { readonly writable: boolean }): Promise<Storage> =>
      openStorage(path, { writable, forceShare }),
    implicitFiles,
  };
  return openReferencedFiles(header, storage, surroundings, FORMATS);
}
