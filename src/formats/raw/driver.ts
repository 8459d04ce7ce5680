import type { FormatDriver } from "../../block/format-driver.js";
import { openRaw } from "./device.js";

/** Raw disks have no mark: every file is one. */
export const rawDriver: FormatDriver = {
  name: "raw",
  creatable: true,
  compresses: false,
  probe: () => false,
  open: async (storage, options) =>
    openRaw(storage, options.readOnly === undefined ? {} : { readOnly: options.readOnly }),
};
