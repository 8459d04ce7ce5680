import { describe, it } from "vitest";
import { EXTENDED_GEOMETRIES } from "../support/crash-geometries.js";
import { crashGeometry } from "../support/crash-suite.js";
import { seedFromEnvironment } from "../support/random.js";

describe("an image with extended L2 entries whose writer loses power at any moment", () => {
  it.each(EXTENDED_GEOMETRIES)(
    "opens, holds what was flushed and has nothing worse than leaks: $name",
    async (geometry) => {
      await crashGeometry(geometry, seedFromEnvironment(1), { seeds: 2, steps: 100, cuts: 10 });
    },
  );
});
