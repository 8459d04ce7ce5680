import { describe, it } from "vitest";
import { ENCRYPTED_GEOMETRIES } from "../support/crash-geometries.js";
import { crashGeometry } from "../support/crash-suite.js";
import { countCalls, FAULT_KINDS, runFault } from "../support/fault-run.js";
import { geometryImage } from "../support/new-image.js";
import { seedFromEnvironment } from "../support/random.js";

/** Each opening of these takes thousands of hashes. */
const FEW = { seeds: 1, steps: 60, cuts: 3 };

describe("an encrypted image", () => {
  it.each(ENCRYPTED_GEOMETRIES)("holds what was flushed when its writer loses power: $name", async (geometry) => {
    const isLuks = geometry.options.encrypt?.format === "luks";
    await crashGeometry(geometry, seedFromEnvironment(1), isLuks ? FEW : { seeds: 2, steps: 80, cuts: 8 });
  });

  it.each(FAULT_KINDS)("loses nothing flushed whichever storage call fails: %s", async (kind) => {
    for (const [index, geometry] of ENCRYPTED_GEOMETRIES.entries()) {
      if (index % 3 !== 0) continue;
      const options = { image: await geometryImage(geometry), seed: seedFromEnvironment(7), steps: 20 };
      const calls = await countCalls(options);
      const stride = geometry.options.encrypt?.format === "luks" ? Math.ceil(calls / 6) : 5;
      for (let nth = 1; nth <= calls; nth += stride) await runFault(options, nth, kind);
    }
  });
});
