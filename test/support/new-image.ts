import { createQcow2 } from "../../src/formats/qcow2/create.js";
import type { CreateQcow2Options } from "../../src/formats/qcow2/create-options.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import type { CrashGeometry } from "./crash-geometries.js";
import { taggedBytes } from "./random.js";

/** The bytes of a fresh image. */
export async function newImage(options: CreateQcow2Options): Promise<Uint8Array> {
  const storage = memoryStorage();
  await createQcow2(storage, options);
  return storage.bytes();
}

/** The bytes of the image that a workload on this geometry begins with. */
export async function geometryImage(geometry: CrashGeometry): Promise<Uint8Array> {
  const image = await newImage(geometry.options);
  if (geometry.prefill === undefined) return image;
  const storage = memoryStorage(image);
  const device = await openQcow2(storage, {});
  await device.write(0, taggedBytes(0, 0, geometry.prefill));
  await device.close();
  return storage.bytes();
}
