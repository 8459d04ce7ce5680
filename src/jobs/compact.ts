import { ZcowError } from "../base/errors.js";
import type { FormatChoice } from "../formats/open-image.js";
import type { CompactOptions, CompactResult } from "../formats/qcow2/compact/compact.js";
import { formatDriver, probeFormat } from "../formats/registry.js";
import { openFileStorage } from "../storage/file-storage.js";
import type { Storage } from "../storage/storage.js";

/** Which image is compacted. */
export interface CompactImageOptions extends CompactOptions {
  readonly format: FormatChoice;
}

/**
 * Makes the file of an image shorter: what lies at its end moves into free clusters before it, and the file is cut off. The disk, its
 * snapshots and bitmaps stay as they are. Nobody may use the image meanwhile. Durable when it resolves; a crash leaves lost clusters at
 * worst. A storage that was passed in stays open.
 *
 * Fails with `NOT_SUPPORTED` for formats other than qcow2 and for images with an external data file, `IMAGE_CORRUPT` for images that a check
 * does not find sound, `PASSPHRASE_REQUIRED` for images encrypted with LUKS, and as `openImage` does.
 */
export async function compactImage(source: string | Storage, options: CompactImageOptions): Promise<CompactResult> {
  if (typeof source !== "string") return compactStorage(source, options);
  if (options.format !== "probe") formatDriver(options.format);
  const storage = await openFileStorage(source, { writable: true });
  try {
    return await compactStorage(storage, options);
  } finally {
    await storage.close();
  }
}

async function compactStorage(storage: Storage, options: CompactImageOptions): Promise<CompactResult> {
  const driver = options.format === "probe" ? await probeFormat(storage) : formatDriver(options.format);
  if (driver.name !== "qcow2") {
    throw new ZcowError("NOT_SUPPORTED", `${storage.name} is ${driver.name}; only qcow2 images can be compacted`, {
      data: { path: storage.name, value: driver.name },
    });
  }
  const { resumeBeforeRepair } = await import("../formats/qcow2/resume-session.js");
  await resumeBeforeRepair(storage);
  const { compactQcow2 } = await import("../formats/qcow2/compact/compact.js");
  return compactQcow2(storage, options);
}
