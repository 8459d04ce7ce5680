import { createQcow2 } from "../../src/formats/qcow2/create.js";
import type { CreateQcow2Options } from "../../src/formats/qcow2/create-options.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";

/** The bytes of a fresh image. */
export async function newImage(options: CreateQcow2Options): Promise<Uint8Array> {
  const storage = memoryStorage();
  await createQcow2(storage, options);
  return storage.bytes();
}
