import { ZcowError } from "../../base/errors.js";
import { isPromise } from "../../base/maybe-promise.js";
import type { BlockDevice } from "../../block/block-device.js";
import type { OpenDeviceOptions } from "../../block/format-driver.js";
import { parseReference, resolveReference } from "../../block/image-reference.js";
import type { PassphraseSource } from "../../block/passphrase.js";
import type { FormatChoice } from "../../formats/open-image.js";
import { openImage, warnAboutGuess } from "../../formats/open-image.js";
import { readHeader } from "../../formats/qcow2/header-read.js";
import { type BackingName, changeBacking } from "../../formats/qcow2/rewrite/change-backing.js";
import { FORMATS, type FormatName, formatDriver, probeFormat } from "../../formats/registry.js";
import { borrowedStorage } from "../../storage/borrowed-storage.js";
import { openStorage } from "../../storage/open-storage.js";
import type { Storage } from "../../storage/storage.js";

/** How an overlay gets another backing image. */
export interface RebaseImageOptions extends Pick<OpenDeviceOptions, "onWarning" | "implicitFiles" | "openFile"> {
  readonly format: FormatChoice;
  /** As the image is to name it: a relative path starts in its folder. Empty or left out: none. */
  readonly backingFile?: string | undefined;
  /** Format of the backing file. Must be given with a backing file. */
  readonly backingFormat?: string | undefined;
  /** Change the name only, whatever shows through then: for a backing file that was moved. Default false. */
  readonly unsafe?: boolean;
  /** Store compressed what has to be copied into the overlay. Default false. */
  readonly compressed?: boolean;
  /** Opens the image when it is encrypted. */
  readonly passphrase?: PassphraseSource | undefined;
  /** Bypass the page cache for the new backing file. Default false. */
  readonly direct?: boolean;
  /** Ignore the locks of other programs on the new backing file. Default false. */
  readonly forceShare?: boolean;
  /** Bytes done, and to do. */
  readonly onProgress?: (done: number, total: number) => void;
}

/**
 * Gives an overlay another backing image. What the disk reads as stays the same: where the old backing image and the new one
 * differ, and the overlay has nothing, it gets what shows now. Nobody may use the overlay meanwhile.
 *
 * Order, for crashes: what is copied is durable, tables included, before the new name is; until then the old name is in force, and
 * under both the disk reads the same. Snapshots inside the overlay are not looked at: what shows through them changes.
 *
 * A storage that was passed in stays open. Fails with `NOT_SUPPORTED` for formats without backing files, `FORMAT_UNKNOWN`, `INVALID_ARGUMENT`,
 * `QCOW2_HEADER_FULL`, and as opening the images does.
 */
export async function rebaseImage(source: string | Storage, options: RebaseImageOptions): Promise<void> {
  if (options.format !== "probe") formatDriver(options.format);
  const storage = typeof source === "string" ? await openStorage(source, { writable: true }) : borrowedStorage(source);
  try {
    await rebaseStorage(storage, options);
  } finally {
    await storage.close();
  }
}

async function rebaseStorage(storage: Storage, options: RebaseImageOptions): Promise<void> {
  const driver = options.format === "probe" ? await probeFormat(storage) : formatDriver(options.format);
  if (options.format === "probe" && driver.name === "raw") warnAboutGuess(storage, options.onWarning);
  const name = options.backingFile ?? "";
  // A damaged image is complained of before the new backing file, which comes before other formats.
  if (driver.name === "qcow2") await readHeader(storage);
  const to = await backingName(storage, options);
  if (driver.name !== "qcow2") throw noBacking(storage, driver.name, options.backingFile);
  if (options.unsafe !== true) await copyDifferences(storage, to, options);
  try {
    await changeBacking(storage, to);
  } catch (error) {
    throw withChangeSubject(error, name);
  }
}

async function backingName(storage: Storage, options: RebaseImageOptions): Promise<BackingName | undefined> {
  const { backingFile, backingFormat, unsafe = false } = options;
  if (backingFile === undefined || backingFile === "") return undefined;
  if (backingFormat !== undefined) return { name: backingFile, format: formatDriver(backingFormat).name };
  // Whether it is there comes first.
  if (!unsafe) await requireThere(storage, backingFile, options);
  throw new ZcowError(
    "FORMAT_UNKNOWN",
    `The format of the backing file '${backingFile}' was not given, and formats are not guessed`,
    {
      data: { option: "backing_fmt", value: backingFile },
      stockText: `Could not change the backing file to '${backingFile}': backing format must be specified`,
    },
  );
}

async function requireThere(storage: Storage, backingFile: string, options: RebaseImageOptions): Promise<void> {
  const { onWarning: _, ...silent } = options;
  await (await openNew(storage, { name: backingFile, format: undefined }, silent)).close();
}

function noBacking(storage: Storage, format: string, name = "(null)"): ZcowError {
  return new ZcowError("NOT_SUPPORTED", `${storage.name} is ${format}, which has no backing files`, {
    data: { path: storage.name, value: format },
    stockText: `Could not change the backing file to '${name}': Operation not supported`,
  });
}

function withChangeSubject(error: unknown, name: string): unknown {
  if (!(error instanceof ZcowError)) return error;
  const reason =
    error.code === "QCOW2_HEADER_FULL" ? "No space left in the file header" : (error.stockText ?? error.message);
  return new ZcowError(error.code, `The backing file cannot become '${name}': ${error.message}`, {
    data: error.data,
    cause: error,
    stockText: `Could not change the backing file to '${name}': ${reason}`,
  });
}

async function copyDifferences(
  storage: Storage,
  to: BackingName | undefined,
  options: RebaseImageOptions,
): Promise<void> {
  const { openEngine } = await import("../../formats/qcow2/open.js");
  const { copyWhatShows } = await import("./copy-what-shows.js");
  const { implicitFiles, onWarning, openFile, passphrase } = options;
  const engine = await openEngine(borrowedStorage(storage), {
    readOnly: false,
    formats: FORMATS,
    passphrase,
    ...(implicitFiles === undefined ? {} : { implicitFiles }),
    ...(onWarning === undefined ? {} : { onWarning }),
    ...(openFile === undefined ? {} : { openFile }),
  });
  let backing: BlockDevice | undefined;
  try {
    backing = to === undefined ? undefined : await openNew(storage, to, options);
    await copyWhatShows(engine, backing, options);
    const flushed = engine.flush();
    if (isPromise(flushed)) await flushed;
  } finally {
    await engine.close();
    await backing?.close();
  }
}

/** The new backing image was named by the caller, what is behind it by itself. */
async function openNew(
  storage: Storage,
  to: { readonly name: string; readonly format: string | undefined },
  options: RebaseImageOptions,
): Promise<BlockDevice> {
  const { implicitFiles, onWarning, openFile, passphrase, direct = false, forceShare = false } = options;
  try {
    const { path, format = to.format } = parseReference(resolveReference(to.name, storage.name), to.format);
    const source = openFile === undefined ? path : await openFile(path, { writable: false });
    return await openImage(source, {
      format: format === undefined ? "probe" : (formatDriver(format).name as FormatName),
      readOnly: true,
      file: { direct, forceShare },
      passphrase: typeof passphrase === "function" ? passphrase : undefined,
      ...(implicitFiles === undefined ? {} : { implicitFiles }),
      ...(onWarning === undefined ? {} : { onWarning }),
      ...(openFile === undefined ? {} : { openFile }),
    });
  } catch (error) {
    if (!(error instanceof ZcowError)) throw error;
    throw new ZcowError(error.code, `The new backing file '${to.name}' cannot be opened: ${error.message}`, {
      data: error.data,
      cause: error,
      stockText: `Could not open new backing file '${to.name}': ${error.stockText ?? error.message}`,
    });
  }
}
