import { describe, it } from "vitest";
import {
  COMPRESSED_GEOMETRIES,
  ENCRYPTED_GEOMETRIES,
  EXTENDED_GEOMETRIES,
  OLD_LAYOUT_GEOMETRIES,
  PLAIN_GEOMETRIES,
  ZONED_GEOMETRIES,
} from "../support/crash-geometries.js";
import { crashGeometry } from "../support/crash-suite.js";
import { seedFromEnvironment } from "../support/random.js";

describe("an image whose writer loses power at any moment, over many seeds", () => {
  it.each([
    ...PLAIN_GEOMETRIES,
    ...EXTENDED_GEOMETRIES,
    ...ZONED_GEOMETRIES,
    ...OLD_LAYOUT_GEOMETRIES,
    ...COMPRESSED_GEOMETRIES,
    ...ENCRYPTED_GEOMETRIES,
  ])("$name", async (geometry) => {
    await crashGeometry(geometry, seedFromEnvironment(1000), { seeds: 60, steps: 200, cuts: 24 });
  });
});
