import { describe, it } from "vitest";
import { ALL_GEOMETRIES, type CrashGeometry } from "../support/crash-geometries.js";
import { countCalls, FAULT_KINDS, type FaultKind, runFault } from "../support/fault-run.js";
import { geometryImage } from "../support/new-image.js";
import { seedFromEnvironment } from "../support/random.js";

const CASES = ALL_GEOMETRIES.flatMap((geometry) =>
  FAULT_KINDS.map((kind): [string, FaultKind, CrashGeometry] => [geometry.name, kind, geometry]),
);

describe("a storage call that fails in the middle of a long workload", () => {
  const first = seedFromEnvironment(500);

  it.each(CASES)("loses nothing flushed, whichever call it is: %s, %s", async (_name, kind, geometry) => {
    const { cacheBytes, from = 0, compressed = false, filled = false, keepZoneSpace = false } = geometry;
    const image = await geometryImage(geometry);
    for (let seed = first; seed < first + 4; seed++) {
      const options = {
        image,
        seed,
        steps: 60,
        from,
        compressed,
        filled,
        keepZoneSpace,
        ...(cacheBytes && { cacheBytes }),
      };
      const calls = await countCalls(options);
      for (let nth = 1; nth <= calls; nth++) await runFault(options, nth, kind);
    }
  });
});
