import { ZcowError } from "../base/errors.js";
import type { PassphraseSource } from "../block/passphrase.js";
import { type FormatChoice, requireReadable } from "../formats/open-image.js";
import type { DirtyBits } from "../formats/qcow2/bitmaps/dirty-bits.js";
import { type ImageBitmaps, requireGranularity } from "../formats/qcow2/bitmaps/image-bitmaps.js";
import { readHeader } from "../formats/qcow2/header-read.js";
import { type FormatName, formatDriver, probeFormat } from "../formats/registry.js";
import { borrowedStorage } from "../storage/borrowed-storage.js";
import { openFileStorage } from "../storage/file-storage.js";
import type { Storage } from "../storage/storage.js";

/** One change of a bitmap. */
export type BitmapAction =
  | { readonly do: "remove" | "clear" | "enable" | "disable" }
  /** `granularity`: bytes that one bit stands for, a power of two from 512 to 2 GiB; default: the cluster size, from 4 to 64 KiB. */
  | { readonly do: "add"; readonly granularity?: number | undefined }
  /** Marks what is marked in bitmap `from` of this image, or in `source`. */
  | {
      readonly do: "merge";
      readonly from: string;
      /** Bits of another image, or who gets them when their turn has come. */
      readonly source?: DirtyBits | (() => Promise<DirtyBits>) | undefined;
    };

/** Which bitmap is to be changed, and how. */
export interface ChangeBitmapOptions {
  readonly format: FormatChoice;
  readonly name: string;
  /** Done in order; when one fails those before it stay done. */
  readonly actions: readonly BitmapAction[];
  readonly passphrase?: PassphraseSource | undefined;
  /** Called when the image is open, before the first action; nothing is done when it fails. */
  readonly beforeActions?: (() => Promise<void>) | undefined;
}

/**
 * Changes a persistent dirty bitmap of an image that nobody else has open. A storage that was passed in stays open.
 *
 * Fails with `NOT_SUPPORTED` for images that cannot have bitmaps, `BITMAP_NOT_FOUND`, `BITMAP_INCONSISTENT`, `BITMAP_REFUSED`, `QCOW2_BITMAPS`
 * for a bad directory, and as `openImage` does. A crash leaves the bitmaps as they were or as they are to be, or marked inconsistent.
 */
export async function changeBitmap(source: string | Storage, options: ChangeBitmapOptions): Promise<void> {
  if (typeof source !== "string") return changeStored(borrowedStorage(source), options);
  if (options.format !== "probe") formatDriver(options.format);
  const storage = await openFileStorage(source, { writable: true });
  try {
    await changeStored(storage, options);
  } finally {
    await storage.close();
  }
}

async function changeStored(storage: Storage, options: ChangeBitmapOptions): Promise<void> {
  await requireQcow2(storage, options.format);
  const { openEngine } = await import("../formats/qcow2/open.js");
  const { passphrase, name, actions, beforeActions } = options;
  const engine = await openEngine(borrowedStorage(storage), {
    readOnly: false,
    withBitmaps: true,
    implicitFiles: "allow",
    passphrase,
  });
  try {
    await beforeActions?.();
    for (const action of actions) await act(engine.bitmaps, engine.geometry.version, name, action);
  } finally {
    // Stores what was done, even when a later action failed.
    await engine.close();
  }
}

async function act(
  bitmaps: ImageBitmaps | undefined,
  version: 2 | 3,
  name: string,
  action: BitmapAction,
): Promise<void> {
  if (bitmaps === undefined) throw new Error("the engine was opened with bitmaps");
  const step = (work: () => void): void => {
    try {
      work();
    } catch (error) {
      throw inAction(action.do, name, error);
    }
  };
  if (action.do === "add") step(() => add(bitmaps, version, name, action.granularity));
  else if (action.do === "remove") step(() => bitmaps.remove(name));
  else if (action.do === "clear") step(() => bitmaps.clear(name));
  else if (action.do === "merge") {
    step(() => bitmaps.bits(name));
    const source = await sourceOf(action);
    step(() => bitmaps.merge(name, source ?? bitmaps.bits(action.from)));
  } else step(() => bitmaps.setEnabled(name, action.do === "enable"));
}

function add(bitmaps: ImageBitmaps, version: 2 | 3, name: string, granularity: number | undefined): void {
  if (granularity !== undefined) requireGranularity(granularity);
  if (version === 2) throw notInVersion2(name);
  bitmaps.add(name, granularity);
}

function sourceOf({ source }: Extract<BitmapAction, { do: "merge" }>): Promise<DirtyBits> | DirtyBits | undefined {
  return typeof source === "function" ? source() : source;
}

function inAction(operation: string, name: string, error: unknown): unknown {
  if (!(error instanceof ZcowError)) return error;
  const prefix = `Operation ${operation} on bitmap ${name} failed`;
  return new ZcowError(error.code, `${prefix}: ${error.message}`, {
    data: error.data,
    cause: error,
    stockText: `${prefix}: ${error.stockText ?? error.message}`,
  });
}

function notInVersion2(name: string): ZcowError {
  return new ZcowError("NOT_SUPPORTED", `Bitmap '${name}' cannot be stored: images of version 2 have no bitmaps`, {
    data: { value: name },
    stockText: `Can't make bitmap '${name}' persistent: Cannot store dirty bitmaps in qcow2 v2 files`,
  });
}

async function requireQcow2(storage: Storage, format: FormatChoice): Promise<void> {
  const driver = format === "probe" ? await probeFormat(storage) : formatDriver(format);
  if (driver.name === "qcow2") return;
  await requireReadable(storage, driver.name as FormatName);
  throw new ZcowError("NOT_SUPPORTED", `${storage.name} is ${driver.name}, which has no bitmaps`, {
    data: { path: storage.name, value: driver.name },
    stockText: `Can't store persistent bitmaps to ${storage.name}: Operation not supported`,
  });
}

/**
 * The bits of a persistent bitmap, for reading: `ranges()` gives what is marked. A storage that was passed in stays open.
 *
 * Fails with `BITMAP_NOT_FOUND`, `BITMAP_INCONSISTENT`, `QCOW2_BITMAPS`, and the codes of header and storage.
 */
export async function readBitmap(
  source: string | Storage,
  options: { readonly format: FormatChoice; readonly name: string },
): Promise<DirtyBits> {
  if (typeof source !== "string") return readStored(source, options);
  const storage = await openFileStorage(source, { writable: false });
  try {
    return await readStored(storage, options);
  } finally {
    await storage.close();
  }
}

async function readStored(
  storage: Storage,
  { format, name }: { readonly format: FormatChoice; readonly name: string },
): Promise<DirtyBits> {
  const driver = format === "probe" ? await probeFormat(storage) : formatDriver(format);
  if (driver.name !== "qcow2") throw noBitmapIn(storage, driver.name, name);
  const { ImageBitmaps } = await import("../formats/qcow2/bitmaps/image-bitmaps.js");
  return (await ImageBitmaps.load(storage, await readHeader(storage))).bits(name);
}

function noBitmapIn(storage: Storage, format: string, name: string): ZcowError {
  return new ZcowError(
    "BITMAP_NOT_FOUND",
    `${storage.name} is ${format}, which has no bitmaps: there is no '${name}'`,
    {
      data: { path: storage.name, value: name },
      stockText: `Dirty bitmap '${name}' not found`,
    },
  );
}
