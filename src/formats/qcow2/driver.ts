import { viewOf } from "../../base/bytes.js";
import type { FormatDriver } from "../../block/format-driver.js";
import { QCOW2_MAGIC } from "./header-fields.js";

/** The engine is loaded when the first image is opened: commands that only look at a header start without it. */
export const qcow2Driver: FormatDriver = {
  name: "qcow2",
  creatable: true,
  probe: (head) => head.length >= 4 && viewOf(head).getUint32(0) === QCOW2_MAGIC,
  open: async (storage, options) => (await import("./open.js")).openQcow2(storage, options),
};
