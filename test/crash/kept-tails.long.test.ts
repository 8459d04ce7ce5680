import { describe, expect, it } from "vitest";
import { KeptTailsLives } from "../support/kept-tails-lives.js";
import { seedFromEnvironment } from "../support/random.js";

const SEEDS_AT_ONCE = 50;

describe("reserved clusters of which only the start is written again, through many processes and snapshots", () => {
  it.each([0, 1, 2, 3, 4, 5, 6, 7])("lose nothing and show nothing of their former lives (part %i)", async (part) => {
    const endings = { close: 0, cut: 0, kill: 0 };
    const first = seedFromEnvironment(1) + part * SEEDS_AT_ONCE;
    for (let seed = first; seed < first + SEEDS_AT_ONCE; seed++) {
      const lives = new KeptTailsLives(seed);
      await lives.run(10, 60);
      for (const kind of ["close", "cut", "kill"] as const) endings[kind] += lives.endings[kind];
    }
    expect(Math.min(...Object.values(endings))).toBeGreaterThan(SEEDS_AT_ONCE);
  });
});
