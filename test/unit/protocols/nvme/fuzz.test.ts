import { expect, it } from "vitest";
import { fuzzTarget } from "../../../support/nvme-fuzz.js";
import { seedFromEnvironment } from "../../../support/random.js";

it.each([1, 2, 3])("bad hosts harm nobody but themselves: seed %i", async (fallback) => {
  const seed = seedFromEnvironment(fallback);
  const result = await fuzzTarget(seed, 2_000);
  expect(result.pdus).toBeGreaterThanOrEqual(2_000);
  expect(result.terminated).toBeGreaterThan(20);
  expect(result.executed).toBeGreaterThan(100);
});
