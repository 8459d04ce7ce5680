import { describe, it } from "vitest";
import { OLD_LAYOUT_GEOMETRIES, ZONED_GEOMETRIES } from "../support/crash-geometries.js";
import { crashGeometry } from "../support/crash-suite.js";
import { seedFromEnvironment } from "../support/random.js";

describe("a zoned image whose writer loses power at any moment", () => {
  it.each(ZONED_GEOMETRIES)(
    "shows no data past a pointer, none from before a reset, and all that was flushed: $name",
    async (geometry) => {
      await crashGeometry(geometry, seedFromEnvironment(1), { seeds: 3, steps: 80, cuts: 12 });
    },
  );
});

describe("a zoned image of an older layout whose writer loses power at any moment", () => {
  it.each(OLD_LAYOUT_GEOMETRIES)("keeps its layout, its pointers and all that was flushed: $name", async (geometry) => {
    await crashGeometry(geometry, seedFromEnvironment(1), { seeds: 2, steps: 80, cuts: 10 });
  });
});
