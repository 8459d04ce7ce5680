import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { type FeatureImage, featureImage } from "./operation-images.js";
import { Random, seedFromEnvironment } from "./random.js";
import { repairRandomDamage } from "./repair-run.js";
import { stockCheck } from "./stock-check.js";
import { hasStockTools, temporaryDirectory } from "./stock-tools.js";

export interface RepairEffort {
  readonly rounds: number;
  /** Power cuts and failing calls in each round. */
  readonly cuts: number;
  readonly faults: number;
}

/** Random damage to each of these images and its repair: no worse at any moment, sound in most cases, to the stock tool as well. */
export function describeRepairs(
  what: string,
  images: readonly FeatureImage[],
  effort: RepairEffort,
  seed: number,
): void {
  describe.each(images)(`repair of random damage to ${what}: $name`, (feature) => {
    const made = featureImage(feature);
    const known =
      hasStockTools &&
      feature.options.zone === undefined &&
      feature.dataFile === undefined &&
      feature.behind === undefined;

    it.each(["all", "leaks"] as const)(
      "%s loses nothing that could be read, whenever it is interrupted",
      async (mode) => {
        const image = await made;
        const path = join(temporaryDirectory(), "repaired.qcow2");
        const onSound = (file: Uint8Array, where: string): Promise<void> => stockCheck(path, file, where);
        const random = new Random(seedFromEnvironment(seed));
        const { rounds, cuts, faults } = effort;
        const tally = await repairRandomDamage(
          { image, random, mode, cuts, faults, ...(known ? { onSound } : {}) },
          rounds,
        );
        expect(tally.sound + tally.hopeless).toBe(rounds);
        // Repairs of leaks have little to do, and in a few rounds nothing.
        if (mode === "leaks") return;
        expect(tally.sound).toBeGreaterThan(rounds / 2);
        expect(tally.judged).toBeGreaterThan(0);
      },
    );
  });
}
