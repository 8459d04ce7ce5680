import { beforeAll, it } from "vitest";
import { CommandLineSuite } from "../support/command-line-suite.js";
import { seedFromEnvironment } from "../support/random.js";
import { describeWithStock, temporaryDirectory } from "../support/stock-tools.js";

const SEEDS = 40;
const LINES = 100;

describeWithStock("many command lines as they come", () => {
  const root = temporaryDirectory();
  const first = seedFromEnvironment(100);
  let suite: CommandLineSuite;

  beforeAll(async () => {
    suite = await CommandLineSuite.prepare(root);
  });

  it.each(Array.from({ length: SEEDS }, (_, index) => first + index))(
    "get the answers of the stock tool (seed %i)",
    async (seed) => {
      await suite.run(seed, LINES);
    },
  );
});
