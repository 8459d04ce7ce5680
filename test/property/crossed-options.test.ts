import { describe, expect, it } from "vitest";
import { CROSSED_OPTIONS, crossedRows, crossImage } from "../support/crossed-image.js";
import { seedFromEnvironment } from "../support/random.js";
import { describeWithStock } from "../support/stock-tools.js";

const seed = seedFromEnvironment(0xc405);
const ROWS = crossedRows(seed);
/** The others, and all large clusters, are in the long suite. */
const FEW = ROWS.filter(({ clusterSize }) => clusterSize <= 65_536).slice(0, 4);

describe("the options that are crossed", () => {
  it("all appear", () => {
    for (const [name, values] of Object.entries(CROSSED_OPTIONS)) {
      const seen = new Set(ROWS.map((row) => row[name as keyof typeof row]));
      expect(seen, name).toEqual(new Set<unknown>(values));
    }
  });
});

describeWithStock("an image with crossed options, written by both programs in turn", () => {
  it.each(FEW.map((row) => [JSON.stringify(row), row] as const))(
    "is clean and equal to its shadow: %s",
    async (_name, row) => {
      await crossImage(row, seed);
    },
  );
});
