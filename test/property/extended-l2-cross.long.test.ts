import { it } from "vitest";
import { crossVariant, FEATURES } from "../support/extended-l2-cross.js";
import { seedFromEnvironment } from "../support/random.js";
import { describeWithStock } from "../support/stock-tools.js";

const KIB = 1024;
const SHAPES = [
  { cluster: "32k", clusterSize: 32 * KIB, bits: 4 },
  { cluster: "64k", clusterSize: 64 * KIB, bits: 64 },
  { cluster: "2M", clusterSize: 2048 * KIB, bits: 8 },
];
const VARIANTS = FEATURES.flatMap((feature) => SHAPES.map((shape) => ({ feature, ...shape })));

describeWithStock("extended L2 entries crossed with every other feature, in larger clusters", () => {
  const seed = seedFromEnvironment(0xc2055);

  it.each(VARIANTS)("stay clean and equal to the shadow ($feature, $cluster, $bits bits)", async (variant) => {
    await crossVariant(variant, seed);
  });
});
