import { ZcowError } from "../../base/errors.js";
import type { BlockDevice } from "../../block/block-device.js";
import { isZonedDevice } from "../../block/zoned-device.js";
import type { Storage } from "../../storage/storage.js";
import { openTemporaryFile } from "../../storage/temporary-file.js";
import { createImage } from "../create-image.js";

/**
 * An empty qcow2 image as large as `base`, which is gone when it is closed. Opened with `base` as its backing image it takes all
 * writes, and `base` none. Fails with `NOT_SUPPORTED` for zoned disks.
 */
export async function temporaryOverlay(base: BlockDevice): Promise<Storage> {
  if (isZonedDevice(base)) {
    throw new ZcowError("NOT_SUPPORTED", `${base.name} is zoned, and a temporary image over it has no zones`, {
      data: { path: base.name },
    });
  }
  const storage = await openTemporaryFile();
  try {
    await createImage(storage, { format: "qcow2", size: base.size });
    return storage;
  } catch (error) {
    await storage.close();
    throw error;
  }
}
