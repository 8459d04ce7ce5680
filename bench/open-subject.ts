import { openImage } from "../src/index.js";

/** Opens the image named by the first argument, reads one sector, closes it. Measured from process start to exit. */
const device = await openImage(process.argv[2] ?? "", { format: "qcow2", readOnly: true });
await device.read(0, new Uint8Array(512));
await device.close();
