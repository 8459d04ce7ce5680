import { expect, it } from "vitest";
import { seedFromEnvironment } from "../support/random.js";
import { describeFailure, runFuzz } from "./fuzz-run.js";
import { FEATURE_KINDS } from "./kinds.js";

const seed = seedFromEnvironment(1);

it("20000 damaged images end in a clean error or a working image, within 256 MiB and without a hang", async () => {
  const result = await runFuzz({ seed, cases: 20_000 });
  expect(result.failures.map((failure) => describeFailure(seed, ["core"], failure)).join("\n\n")).toBe("");
});

it("50000 damaged images of every feature and format end in a clean error or a right result", async () => {
  const result = await runFuzz({ seed, kinds: FEATURE_KINDS, cases: 50_000 });
  expect(result.failures.map((failure) => describeFailure(seed, FEATURE_KINDS, failure)).join("\n\n")).toBe("");
  // About half an hour on an idle machine.
}, 7_200_000);
