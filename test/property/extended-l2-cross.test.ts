import { it } from "vitest";
import { crossVariant, FEATURES } from "../support/extended-l2-cross.js";
import { seedFromEnvironment } from "../support/random.js";
import { describeWithStock } from "../support/stock-tools.js";

const KIB = 1024;
const SHAPES = [{ cluster: "16k", clusterSize: 16 * KIB, bits: 16 }];
const VARIANTS = FEATURES.flatMap((feature) => SHAPES.map((shape) => ({ feature, ...shape })));

describeWithStock("extended L2 entries crossed with every other feature", () => {
  const seed = seedFromEnvironment(0xc2055);

  it.each(VARIANTS)("stay clean and equal to the shadow ($feature, $cluster, $bits bits)", async (variant) => {
    await crossVariant(variant, seed);
  });
});
