import { writeFile } from "node:fs/promises";
import { expect } from "vitest";
import { type BlockDevice, openImage } from "../../src/index.js";
import { PlainWorkload } from "./plain-workload.js";
import type { Random } from "./random.js";
import type { LiveBytes } from "./sector-history.js";
import { expectCleanCheck, expectSameContents, qemuIo } from "./stock-tools.js";
import { type StockWorkload, stockCommands } from "./stock-workload.js";

/** A qcow2 image that zcow and stock qemu-io write in turn, and what it must read as. */
export interface SharedImage extends StockWorkload {
  readonly path: string;
  readonly history: LiveBytes;
}

export async function succeed(run: Promise<{ code: number; stdout: string; stderr: string }>): Promise<void> {
  const { code, stdout, stderr } = await run;
  expect(code, `${stdout}${stderr}`).toBe(0);
}

function workloadOn({ history, clusterSize, compressed = false }: SharedImage, device: BlockDevice, random: Random) {
  return new PlainWorkload({ random, device, history, position: () => 0, clusterSize, unaligned: true, compressed });
}

/** `steps` random requests by us, between two looks at the whole disk. */
export async function weWrite(image: SharedImage, random: Random, steps: number): Promise<void> {
  const device = await openImage(image.path, { format: "qcow2", implicitFiles: "allow" });
  const workload = workloadOn(image, device, random);
  await workload.verify();
  await workload.run(steps);
  await workload.verify();
  await device.close();
}

/** `steps` random commands of qemu-io, in one run of it. */
export async function stockWrites(image: SharedImage, random: Random, steps: number): Promise<void> {
  const commands = stockCommands(random, image.history.live, steps, image);
  await succeed(qemuIo(["-d", "unmap", "-f", "qcow2", ...commands, image.path]));
}

/** We read what it must read as. */
export async function expectOurReading(image: SharedImage, random: Random): Promise<void> {
  const device = await openImage(image.path, { format: "qcow2", readOnly: true, implicitFiles: "allow" });
  await workloadOn(image, device, random).verify();
  await device.close();
}

/** The stock tools find no fault, and read what it must read as: in `path` and in a raw data file, where there is one. */
export async function expectStockReading({ path, history }: SharedImage, rawData?: string): Promise<void> {
  await expectCleanCheck(path);
  const shadow = `${path}.shadow`;
  await writeFile(shadow, history.live);
  await expectSameContents(path, "qcow2", shadow, "raw");
  if (rawData !== undefined) await expectSameContents(rawData, "raw", shadow, "raw");
}
