import { expect, it } from "vitest";
import { seedFromEnvironment } from "../support/random.js";
import { describeFailure, runFuzz } from "./fuzz-run.js";

/** ZCOW_FUZZ_CASE repeats one case of ZCOW_SEED. */
const onlyCase = process.env["ZCOW_FUZZ_CASE"];
const seed = seedFromEnvironment(20_261_122);

it("2000 damaged images end in a clean error or a working image, within 256 MiB and without a hang", async () => {
  const which = onlyCase === undefined ? { cases: 2000 } : { cases: 1, from: Number(onlyCase) };
  const result = await runFuzz({ seed, ...which });
  expect(result.failures.map((failure) => describeFailure(seed, ["core"], failure)).join("\n\n")).toBe("");
  // About 13 seconds on an idle machine.
}, 180_000);
