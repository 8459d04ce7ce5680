import { ZcowError } from "../base/errors.js";
import type { FormatChoice } from "../formats/open-image.js";
import { openEngine } from "../formats/qcow2/open.js";
import { convertZonedLayout } from "../formats/qcow2/zones/open-zones.js";
import { formatDriver, probeFormat } from "../formats/registry.js";
import { borrowedStorage } from "../storage/borrowed-storage.js";
import { openFileStorage } from "../storage/file-storage.js";
import type { Storage } from "../storage/storage.js";

export interface AmendImageOptions {
  readonly format: FormatChoice;
  /** Converts the zoned extension and the write-pointer table, in place. */
  readonly zoneLayout: "current";
}

/**
 * Changes an option of an existing image, in place. A crash leaves the old image or the new one. An image
 * that is already as asked stays untouched. A storage that was passed in stays open.
 *
 * Fails with `AMEND_UNSUPPORTED` for formats without options, `NOT_SUPPORTED` on images without zones, and as
 * `openImage` does; with the `ZONED_*` code of a rule that the image breaks and the current layout insists on.
 */
export async function amendImage(source: string | Storage, options: AmendImageOptions): Promise<void> {
  if (typeof source !== "string") return amendStorage(borrowedStorage(source), options);
  if (options.format !== "probe") formatDriver(options.format);
  const storage = await openFileStorage(source, { writable: true });
  try {
    await amendStorage(storage, options);
  } finally {
    await storage.close();
  }
}

async function amendStorage(storage: Storage, options: AmendImageOptions): Promise<void> {
  const driver = options.format === "probe" ? await probeFormat(storage) : formatDriver(options.format);
  if (driver.name !== "qcow2") {
    throw new ZcowError("AMEND_UNSUPPORTED", `${storage.name} is ${driver.name}, which has no options to change`, {
      data: { path: storage.name, value: driver.name },
      stockText: `Format driver '${driver.name}' does not support option amendment`,
    });
  }
  const engine = await openEngine(storage, { readOnly: false });
  try {
    await convertZonedLayout(engine);
  } finally {
    await engine.close();
  }
}
