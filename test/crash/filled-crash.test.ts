import { describe, it } from "vitest";
import { FILLED_GEOMETRIES } from "../support/crash-geometries.js";
import { crashGeometry } from "../support/crash-suite.js";
import { seedFromEnvironment } from "../support/random.js";

describe("an image that others fill, whose host loses power at any moment", () => {
  it.each(FILLED_GEOMETRIES)(
    "opens, holds what was flushed and has nothing worse than leaks: $name",
    async (geometry) => {
      await crashGeometry(geometry, seedFromEnvironment(31), { seeds: 3, steps: 100, cuts: 10 });
    },
  );
});
