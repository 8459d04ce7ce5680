import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import { CRASH_PASSPHRASE, type CrashGeometry } from "./crash-geometries.js";
import { runCrashPlan } from "./crash-run.js";
import { geometryImage } from "./new-image.js";
import { INCOMPATIBLE_DIRTY, ReferenceImage } from "./reference-image.js";
import { hasStockTools, qemuImg, temporaryDirectory } from "./stock-tools.js";

export interface CrashSuiteSize {
  readonly seeds: number;
  readonly steps: number;
  readonly cuts: number;
}

/** Runs one geometry over many seeds; the images in the sample are also judged by stock `qemu-img check`. */
export async function crashGeometry(geometry: CrashGeometry, firstSeed: number, size: CrashSuiteSize): Promise<void> {
  const image = await geometryImage(geometry);
  const zoned = geometry.options.zone !== undefined;
  const path = join(temporaryDirectory(), "crashed.qcow2");
  const layout = new ReferenceImage(image).zoned?.layout;
  const onSample = async (file: Uint8Array, where: string): Promise<void> => {
    expect(new ReferenceImage(file).zoned?.layout, where).toBe(layout);
    // Stock tools of version 7.2 refuse the zoned feature bit.
    if (hasStockTools && !zoned) await stockCheck(path, file, where);
  };
  expect(layout).toBe(geometry.options.zone && (geometry.options.zone.layout ?? "current"));
  let images = 0;
  for (let seed = firstSeed; seed < firstSeed + size.seeds; seed++) {
    const { steps, cuts } = size;
    const { cacheBytes, from = 0, compressed = false } = geometry;
    const tally = await runCrashPlan({
      image,
      seed,
      steps,
      cuts,
      lives: 2,
      from,
      compressed,
      unaligned: seed % 2 === 0,
      ...(cacheBytes && { cacheBytes }),
      onSample,
    });
    images += tally.images;
  }
  expect(images).toBeGreaterThan(size.seeds * size.cuts);
}

/** Nothing but leaks. An image with stale refcounts says so, and the stock tool mends it when it opens it for writing. */
async function stockCheck(path: string, file: Uint8Array, where: string): Promise<void> {
  await writeFile(path, file);
  const dirty = (new ReferenceImage(await readFile(path)).incompatible & INCOMPATIBLE_DIRTY) !== 0n;
  const encrypted = new ReferenceImage(file).cryptMethod !== 0;
  const secret = ["--object", `secret,id=s,data=${CRASH_PASSPHRASE}`, "--image-opts"];
  const image = encrypted
    ? [...secret, `driver=qcow2,encrypt.key-secret=s,file.filename=${path}`]
    : ["-f", "qcow2", path];
  if (dirty) await qemuImg(["check", "-q", "-r", "all", ...image]);
  const result = await qemuImg(["check", ...image]);
  if (result.code !== 0 && result.code !== 3)
    throw new Error(`${where}: qemu-img check says ${result.stdout}${result.stderr}`);
}
