import type { FormatDriver } from "../../block/format-driver.js";
import { hasQcow2Magic } from "./header-fields.js";

/** The engine is loaded when the first image is opened: commands that only look at a header start without it. */
export const qcow2Driver: FormatDriver = {
  name: "qcow2",
  creatable: true,
  compresses: true,
  probe: hasQcow2Magic,
  open: async (storage, options) => (await import("./open.js")).openQcow2(storage, options),
};
