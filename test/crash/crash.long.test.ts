import { describe, it } from "vitest";
import { ALL_GEOMETRIES, type CrashGeometry } from "../support/crash-geometries.js";
import { crashGeometry } from "../support/crash-suite.js";
import { seedFromEnvironment } from "../support/random.js";

/** In pieces, so that each ends within a few minutes, and one can be run alone. */
const SEEDS_AT_ONCE = 15;
const PIECES = ALL_GEOMETRIES.flatMap((geometry) =>
  [1, 2, 3, 4].map((part): [string, number, CrashGeometry] => [geometry.name, part, geometry]),
);

describe("an image whose writer loses power at any moment, over many seeds", () => {
  it.each(PIECES)("%s, part %i of 4", async (_name, part, geometry) => {
    const first = seedFromEnvironment(1000) + (part - 1) * SEEDS_AT_ONCE;
    await crashGeometry(geometry, first, { seeds: SEEDS_AT_ONCE, steps: 200, cuts: 24 });
  });
});
