import { describe, it } from "vitest";
import { ENCRYPTED_GEOMETRIES } from "../support/crash-geometries.js";
import { crashGeometry } from "../support/crash-suite.js";
import { countCalls, FAULT_KINDS, runFault } from "../support/fault-run.js";
import { geometryImage } from "../support/new-image.js";
import { seedFromEnvironment } from "../support/random.js";

describe("an encrypted image", () => {
  it.each(ENCRYPTED_GEOMETRIES)("holds what was flushed when its writer loses power: $name", async (geometry) => {
    await crashGeometry(geometry, seedFromEnvironment(1), { seeds: 2, steps: 80, cuts: 8 });
  });

  it.each(FAULT_KINDS)("loses nothing flushed whichever storage call fails: %s", async (kind) => {
    const [geometry] = ENCRYPTED_GEOMETRIES;
    if (geometry === undefined) throw new Error("no geometry");
    const options = { image: await geometryImage(geometry), seed: seedFromEnvironment(7), steps: 20 };
    const calls = await countCalls(options);
    for (let nth = 1; nth <= calls; nth += 5) await runFault(options, nth, kind);
  });
});
