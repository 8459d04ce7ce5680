import { describe, expect, it } from "vitest";
import { PLAIN_GEOMETRIES, ZONED_GEOMETRIES } from "../support/crash-geometries.js";
import { expectNothingLost, expectResumedSound, momentsOfProcess } from "../support/killed-process.js";
import { seedFromEnvironment } from "../support/random.js";

const SEEDS = 4;
/** Version 2 has no bits for a mark, so no journal. */
const SHAPES = [...PLAIN_GEOMETRIES, ...ZONED_GEOMETRIES].filter(({ options }) => options.compat !== "0.10");

describe("an image whose process is killed at any moment, with a journal", () => {
  it.each(SHAPES)("has everything that was acknowledged, and is sound: $name", async (geometry) => {
    const first = seedFromEnvironment(1);
    for (let seed = first; seed < first + SEEDS; seed++) {
      const moments = await momentsOfProcess(geometry, seed, { steps: 150, moments: 25 });
      expect(moments.length).toBeGreaterThan(5);
      for (const [index, moment] of moments.entries()) {
        await expectNothingLost(moment).catch((error: unknown) => {
          throw new Error(`seed ${seed}, moment ${index}`, { cause: error });
        });
        await expectResumedSound(moment);
      }
    }
  });
});
