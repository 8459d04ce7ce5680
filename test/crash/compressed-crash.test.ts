import { describe, it } from "vitest";
import { COMPRESSED_GEOMETRIES } from "../support/crash-geometries.js";
import { crashGeometry } from "../support/crash-suite.js";
import { seedFromEnvironment } from "../support/random.js";

describe("an image with compressed clusters whose writer loses power at any moment", () => {
  it.each(COMPRESSED_GEOMETRIES)(
    "opens, holds what was flushed and has nothing worse than leaks: $name",
    async (geometry) => {
      await crashGeometry(geometry, seedFromEnvironment(11), { seeds: 2, steps: 100, cuts: 10 });
    },
  );
});
