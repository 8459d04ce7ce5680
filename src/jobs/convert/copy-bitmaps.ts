import { ZcowError } from "../../base/errors.js";
import type { FormatChoice } from "../../formats/open-image.js";
import type { BitmapSummary } from "../../formats/qcow2/bitmaps/image-bitmaps.js";
import { readHeader } from "../../formats/qcow2/header-read.js";
import { formatDriver, probeFormat } from "../../formats/registry.js";
import { borrowedStorage } from "../../storage/borrowed-storage.js";
import { openFileStorage } from "../../storage/file-storage.js";
import type { Storage } from "../../storage/storage.js";

/** The bitmaps of a source, read before anything is made, the newest first as the stock tool copies them. */
export interface BitmapsToCopy {
  readonly bitmaps: readonly BitmapSummary[];
  /** Names of those that cannot be trusted, and are left out. */
  readonly broken: readonly string[];
}

/**
 * The persistent dirty bitmaps of an image. A storage that was passed in stays open. Fails with `BITMAP_INCONSISTENT` when one cannot be trusted, unless
 * `skipBroken` is set; `NOT_SUPPORTED` where the format has none; `QCOW2_BITMAPS`, and the codes of header and storage.
 */
export async function bitmapsToCopy(
  source: string | Storage,
  format: FormatChoice,
  forceShare: boolean,
  skipBroken: boolean,
): Promise<BitmapsToCopy> {
  const storage =
    typeof source === "string"
      ? await openFileStorage(source, { writable: false, forceShare })
      : borrowedStorage(source);
  const path = storage.name;
  try {
    const driver = format === "probe" ? await probeFormat(storage) : formatDriver(format);
    if (driver.name !== "qcow2") throw noBitmaps(path, driver.name);
    const { ImageBitmaps } = await import("../../formats/qcow2/bitmaps/image-bitmaps.js");
    const all = (await ImageBitmaps.load(storage, await readHeader(storage))).list().toReversed();
    const broken = all.filter(({ bits }) => bits === undefined).map(({ name }) => name);
    if (broken[0] !== undefined && !skipBroken) throw inconsistent(path, broken[0]);
    return { bitmaps: all.filter(({ bits }) => bits !== undefined), broken };
  } finally {
    await storage.close();
  }
}

/**
 * Adds `bitmaps` to the qcow2 image at `path`, which nobody has open, as they were in the source: granularity, bits, and whether they
 * record writes. Fails with `BITMAP_REFUSED` when one of a name is there already, or the disk has another size.
 */
export async function addBitmaps(path: string, bitmaps: readonly BitmapSummary[]): Promise<void> {
  const { openEngine } = await import("../../formats/qcow2/open.js");
  const storage = await openFileStorage(path, { writable: true });
  const engine = await openEngine(storage, {
    readOnly: false,
    withBitmaps: true,
    implicitFiles: "allow",
  });
  try {
    if (engine.bitmaps === undefined) throw new Error("the engine was opened with bitmaps");
    const there = new Set(engine.bitmaps.list().map(({ name }) => name));
    const inTheWay = bitmaps.find(({ name }) => there.has(name));
    // What fails is told of the newest; what succeeds is stored in the old order.
    const fits = inTheWay === undefined && bitmaps.every(({ bits }) => bits?.size === engine.geometry.size);
    for (const { name, granularity, enabled, bits } of fits ? bitmaps.toReversed() : bitmaps) {
      try {
        engine.bitmaps.add(name, granularity);
      } catch (error) {
        throw failedTo(`Failed to create bitmap ${name}`, error);
      }
      try {
        if (bits !== undefined) engine.bitmaps.merge(name, bits);
        if (!enabled) engine.bitmaps.setEnabled(name, false);
      } catch (error) {
        engine.bitmaps.remove(name);
        throw failedTo(`Failed to populate bitmap ${name}`, error);
      }
    }
  } finally {
    await engine.close();
  }
}

function failedTo(what: string, error: unknown): unknown {
  if (!(error instanceof ZcowError)) return error;
  return new ZcowError(error.code, `${what}: ${error.message}`, {
    data: error.data,
    cause: error,
    stockText: `${what}: ${error.stockText ?? error.message}`,
  });
}

function noBitmaps(path: string, format: string): ZcowError {
  return new ZcowError("NOT_SUPPORTED", `${path} is ${format}, which has no bitmaps`, {
    data: { path, value: format },
    stockText: "Source lacks bitmap support",
  });
}

function inconsistent(path: string, name: string): ZcowError {
  return new ZcowError("BITMAP_INCONSISTENT", `Bitmap '${name}' of ${path} is inconsistent and cannot be copied`, {
    data: { path, value: name },
    stockText: `Cannot copy inconsistent bitmap '${name}'\nTry --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it`,
  });
}
