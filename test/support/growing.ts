import type { Qcow2Device } from "../../src/formats/qcow2/device.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { borrowedStorage } from "../../src/storage/borrowed-storage.js";
import type { Storage } from "../../src/storage/storage.js";
import { CRASH_PASSPHRASE } from "./crash-geometries.js";
import type { ImageToChange } from "./operation-crash.js";
import { FEATURE_IMAGES, type FeatureImage } from "./operation-images.js";

/** Plain disks, which can grow while they are open: of every feature, but for version 2 with snapshots, which do not say how large they are. */
export const GROWING_IMAGES: readonly FeatureImage[] = FEATURE_IMAGES.filter(
  ({ options, snapshots }) => options.zone === undefined && !(options.compat === "0.10" && snapshots === true),
);

/** Opens the disk on `storage`, which stays open when the disk is closed. */
export async function openGrowing(storage: Storage, image: Pick<ImageToChange, "files"> = {}): Promise<Qcow2Device> {
  const device = await openQcow2(borrowedStorage(storage), { ...image.files?.(), passphrase: CRASH_PASSPHRASE });
  return device as Qcow2Device;
}
