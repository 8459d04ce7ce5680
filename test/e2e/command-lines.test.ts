import { beforeAll, it } from "vitest";
import { CommandLineSuite } from "../support/command-line-suite.js";
import { describeWithStock, temporaryDirectory } from "../support/stock-tools.js";

describeWithStock("command lines as they come", () => {
  const root = temporaryDirectory();
  let suite: CommandLineSuite;

  beforeAll(async () => {
    suite = await CommandLineSuite.prepare(root);
  });

  it.each([1, 2, 3])("get the answers of the stock tool (seed %i)", async (seed) => {
    await suite.run(seed, 40);
  });
});
