import { openImage } from "../src/index.js";

/**
 * Opens the image named by the first argument for a look, as `zcow info` does (no lock of its own), reads one sector,
 * closes it. Measured from process start to exit.
 */
async function main(path: string): Promise<void> {
  const device = await openImage(path, { format: "qcow2", readOnly: true, file: { lock: { use: "inspect" } } });
  await device.read(0, new Uint8Array(512));
  await device.close();
}

void main(process.argv[2] ?? "");
