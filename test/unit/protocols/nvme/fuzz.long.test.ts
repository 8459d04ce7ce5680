import { expect, it } from "vitest";
import { fuzzTarget } from "../../../support/nvme-fuzz.js";
import { seedFromEnvironment } from "../../../support/random.js";

it("a hundred thousand PDUs of bad hosts harm nobody but themselves", async () => {
  const seed = seedFromEnvironment(Date.now());
  console.log(`ZCOW_SEED=${seed}`);
  let pdus = 0;
  for (let part = 0; part < 10; part++) pdus += (await fuzzTarget(seed + part, 10_000)).pdus;
  expect(pdus).toBeGreaterThanOrEqual(100_000);
});
