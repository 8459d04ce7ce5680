import { isZonedDevice, type ZonedDevice } from "../../src/block/zoned-device.js";
import { type OpenQcow2Options, openQcow2 } from "../../src/formats/qcow2/open.js";
import type { Storage } from "../../src/storage/storage.js";

/** Opens the zoned image on `storage`; throws for any other. */
export async function openZoned(storage: Storage, options?: OpenQcow2Options): Promise<ZonedDevice> {
  const device = await openQcow2(storage, options);
  if (!isZonedDevice(device)) throw new Error("not zoned");
  return device;
}
