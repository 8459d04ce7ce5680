import { join } from "node:path";
import { expect } from "vitest";
import type { CrashGeometry } from "./crash-geometries.js";
import { runCrashPlan } from "./crash-run.js";
import { geometryImage } from "./new-image.js";
import { ReferenceImage } from "./reference-image.js";
import { stockCheck } from "./stock-check.js";
import { hasStockTools, temporaryDirectory } from "./stock-tools.js";

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
    const { cacheBytes, from = 0, compressed = false, filled = false, keepZoneSpace = false } = geometry;
    const tally = await runCrashPlan({
      image,
      seed,
      steps,
      cuts,
      lives: 2,
      from,
      compressed,
      filled,
      unaligned: seed % 2 === 0,
      ...(cacheBytes && { cacheBytes }),
      keepZoneSpace,
      onSample,
    });
    images += tally.images;
  }
  expect(images).toBeGreaterThan(size.seeds * size.cuts);
}
