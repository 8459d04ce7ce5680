import { describe, expect, it } from "vitest";
import { PLAIN_GEOMETRIES, ZONED_GEOMETRIES } from "./crash-geometries.js";
import { expectNothingLost, expectResumedSound, momentsOfProcess } from "./killed-process.js";
import { seedFromEnvironment } from "./random.js";

/** Version 2 has no bits for a mark, so no journal. */
const SHAPES = [...PLAIN_GEOMETRIES, ...ZONED_GEOMETRIES].filter(({ options }) => options.compat !== "0.10");

/** `seeds` workloads on every shape of image, each killed at up to `moments` moments. */
export function killedProcessSuite(options: { readonly seeds: number; readonly moments: number }): void {
  describe("an image whose process is killed at any moment, with a journal", () => {
    it.each(SHAPES)("has everything that was acknowledged, and is sound: $name", async (geometry) => {
      const first = seedFromEnvironment(1);
      for (let seed = first; seed < first + options.seeds; seed++) {
        const moments = await momentsOfProcess(geometry, seed, { steps: 150, moments: options.moments });
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
}
