import { expect, it } from "vitest";
import { seedFromEnvironment } from "../support/random.js";
import { describeFailure, runFuzz } from "./fuzz-run.js";
import { FEATURE_KINDS } from "./kinds.js";

const seed = seedFromEnvironment(20_261_122);

it("damaged images of every feature and format end in a clean error or a right result, within 256 MiB and without a hang", async () => {
  const result = await runFuzz({ seed, kinds: FEATURE_KINDS, cases: 150 });
  expect(result.failures.map((failure) => describeFailure(seed, FEATURE_KINDS, failure)).join("\n\n")).toBe("");
}, 180_000);
