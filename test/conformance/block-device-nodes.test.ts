import { copyOnRead } from "../../src/block/copy-on-read.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { debugStorage } from "../../src/storage/debug/debug-storage.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import { newImage } from "../support/new-image.js";
import { BLOCK_DEVICE_SIZE, describeBlockDevice } from "./block-device-suite.js";

describeBlockDevice("a qcow2 image behind fault injection", async () => {
  let storage = memoryStorage(await newImage({ size: BLOCK_DEVICE_SIZE }));
  return {
    open: async ({ readOnly }) => {
      storage = memoryStorage(storage.bytes());
      return openQcow2(debugStorage(storage), { readOnly });
    },
    imageBytes: () => storage.bytes(),
  };
});

describeBlockDevice("a qcow2 image whose requests are cut and widened", async () => {
  let storage = memoryStorage(await newImage({ size: BLOCK_DEVICE_SIZE }));
  return {
    open: async ({ readOnly }) => {
      storage = memoryStorage(storage.bytes());
      const limits = { align: 4096, maxTransfer: 16_384, maxWriteZero: 65_536, maxDiscard: 65_536 };
      return openQcow2(debugStorage(storage, { limits }), { readOnly });
    },
    imageBytes: () => storage.bytes(),
  };
});

describeBlockDevice(
  "a qcow2 image that keeps what is read",
  async () => {
    let storage = memoryStorage(await newImage({ size: BLOCK_DEVICE_SIZE }));
    return {
      open: async ({ readOnly }) => {
        storage = memoryStorage(storage.bytes());
        const device = await openQcow2(storage, { readOnly });
        return readOnly ? device : copyOnRead(device);
      },
      imageBytes: () => storage.bytes(),
    };
  },
  { grows: false },
);
