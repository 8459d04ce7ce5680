import type { CreateQcow2Options } from "../../src/formats/qcow2/create-options.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { newImage } from "../support/new-image.js";
import { BLOCK_DEVICE_SIZE, describeBlockDevice } from "./block-device-suite.js";

const VARIANTS: readonly [name: string, options: Omit<CreateQcow2Options, "size">][] = [
  ["version 3", {}],
  ["version 2", { compat: "0.10" }],
  ["clusters of 512 bytes", { clusterSize: 512 }],
  ["clusters of 2 MiB", { clusterSize: 2 ** 21 }],
  ["counts of one bit", { refcountBits: 1 }],
  ["lazy refcounts", { lazyRefcounts: true }],
  ["preallocated metadata", { preallocation: "metadata" }],
];

for (const [name, options] of VARIANTS) {
  describeBlockDevice(`a qcow2 image, ${name},`, async () => {
    let storage = memoryStorage(await newImage({ ...options, size: BLOCK_DEVICE_SIZE }));
    return {
      open: async ({ readOnly }) => {
        storage = memoryStorage(storage.bytes());
        return openQcow2(storage, { readOnly });
      },
      imageBytes: () => storage.bytes(),
    };
  });
}
