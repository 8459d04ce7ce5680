import { it } from "vitest";
import { crossedRows, crossImage } from "../support/crossed-image.js";
import { seedFromEnvironment } from "../support/random.js";
import { describeWithStock } from "../support/stock-tools.js";

const first = seedFromEnvironment(0xc405);
const ROUNDS = [first, first + 1, first + 2];
const ROWS = ROUNDS.flatMap((seed) => crossedRows(seed).map((row) => [seed, JSON.stringify(row), row] as const));

describeWithStock("an image with every pair of options, written by both programs in turn", () => {
  it.each(ROWS)("is clean and equal to its shadow (seed %i): %s", async (seed, _name, row) => {
    await crossImage(row, seed);
  });
});
