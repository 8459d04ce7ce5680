import { describe, expect, it } from "vitest";
import {
  COMPRESSED_GEOMETRIES,
  type CrashGeometry,
  EXTENDED_GEOMETRIES,
  FILLED_GEOMETRIES,
  PLAIN_GEOMETRIES,
  ZONED_GEOMETRIES,
} from "../support/crash-geometries.js";
import { countCalls, FAULT_KINDS, type FaultKind, runFault } from "../support/fault-run.js";
import { geometryImage } from "../support/new-image.js";
import { seedFromEnvironment } from "../support/random.js";

const byName = (list: readonly CrashGeometry[], ...names: string[]): CrashGeometry[] =>
  list.filter((geometry) => names.some((name) => geometry.name.startsWith(name)));

/** Few steps and small disks. Every call fails once; in the rarer ways, and on the large disk, some do; all of them in the long suite. */
const GEOMETRIES = [
  ...byName(EXTENDED_GEOMETRIES, "extended L2, 16 KiB", "extended L2, lazy"),
  ...byName(PLAIN_GEOMETRIES, "512-byte clusters, tiny", "refcounts that outgrow", "lazy"),
  ...byName(ZONED_GEOMETRIES, "zones smaller", "zones wider", "zones that keep"),
  ...byName(FILLED_GEOMETRIES, "filled, 512-byte clusters, tiny", "filled, refcounts that outgrow", "filled, lazy"),
  ...byName(COMPRESSED_GEOMETRIES, "compressed, 2-bit", "compressed, zones, one"),
];
const STEPS = 20;
const OTHER_KINDS_STRIDE = 3;
const LARGE_DISK_STRIDE = 4;

const CASES = GEOMETRIES.flatMap((geometry) =>
  FAULT_KINDS.map((kind): [string, FaultKind, CrashGeometry] => [geometry.name, kind, geometry]),
);

describe("a storage call that fails in the middle of a workload", () => {
  it.each(CASES)("loses nothing flushed, whichever call it is: %s, %s", async (_name, kind, geometry) => {
    const { cacheBytes, from = 0, compressed = false, filled = false, keepZoneSpace = false } = geometry;
    const options = {
      image: await geometryImage(geometry),
      seed: seedFromEnvironment(7),
      steps: STEPS,
      from,
      compressed,
      filled,
      keepZoneSpace,
      ...(cacheBytes && { cacheBytes }),
    };
    const calls = await countCalls(options);
    expect(calls).toBeGreaterThan(50);
    const stride =
      (kind === "error" ? 1 : OTHER_KINDS_STRIDE) * (geometry.prefill === undefined ? 1 : LARGE_DISK_STRIDE);
    for (let nth = 1; nth <= calls; nth += stride) await runFault(options, nth, kind);
  });
});
