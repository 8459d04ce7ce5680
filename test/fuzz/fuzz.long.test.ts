import { expect, it } from "vitest";
import { seedFromEnvironment } from "../support/random.js";
import { describeFailure, runFuzz } from "./fuzz-run.js";

const seed = seedFromEnvironment(1);

it("20000 damaged images end in a clean error or a working image, within 256 MiB and without a hang", async () => {
  const result = await runFuzz({ seed, cases: 20_000 });
  expect(result.failures.map((failure) => describeFailure(seed, failure)).join("\n\n")).toBe("");
});
