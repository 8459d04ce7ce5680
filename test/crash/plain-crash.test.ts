import { describe, it } from "vitest";
import { PLAIN_GEOMETRIES } from "../support/crash-geometries.js";
import { crashGeometry } from "../support/crash-suite.js";
import { seedFromEnvironment } from "../support/random.js";

describe("a plain image whose writer loses power at any moment", () => {
  it.each(PLAIN_GEOMETRIES)(
    "opens, holds what was flushed and has nothing worse than leaks: $name",
    async (geometry) => {
      await crashGeometry(geometry, seedFromEnvironment(1), { seeds: 3, steps: 120, cuts: 12 });
    },
  );
});
