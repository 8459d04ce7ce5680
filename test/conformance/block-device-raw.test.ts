import { openRaw } from "../../src/formats/raw/device.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { BLOCK_DEVICE_SIZE, describeBlockDevice } from "./block-device-suite.js";

describeBlockDevice("a raw disk in memory", async () => {
  let storage = memoryStorage(BLOCK_DEVICE_SIZE);
  return {
    open: async ({ readOnly }) => {
      storage = memoryStorage(storage.bytes());
      return openRaw(storage, { readOnly });
    },
    imageBytes: () => storage.bytes(),
  };
});
