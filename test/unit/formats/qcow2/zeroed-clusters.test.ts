import { expect, test } from "vitest";
import { ZeroedClusters } from "../../../../src/formats/qcow2/zeroed-clusters.js";
import { Random } from "../../../support/random.js";

test("knows the same clusters as a plain set", () => {
  const random = new Random(64);
  for (let round = 0; round < 20; round++) {
    const zeroed = new ZeroedClusters();
    const plain = new Set<number>();
    for (let step = 0; step < 400; step++) {
      const first = random.below(120);
      const count = random.between(1, 12);
      const all = Array.from({ length: count }, (_, index) => first + index);
      const kind = random.pick(["add", "remove", "has"]);
      if (kind === "add") {
        zeroed.add(first, count);
        for (const cluster of all) plain.add(cluster);
      } else if (kind === "remove") {
        zeroed.remove(first, count);
        for (const cluster of all) plain.delete(cluster);
      }
      expect(zeroed.has(first, count)).toBe(all.every((cluster) => plain.has(cluster)));
    }
  }
});

test("forgets rather than grow without bound, and never claims too much", () => {
  const zeroed = new ZeroedClusters();
  for (let cluster = 0; cluster < 20_000; cluster += 2) zeroed.add(cluster, 1);
  expect(zeroed.has(0, 1)).toBe(true);
  expect(zeroed.has(1, 1)).toBe(false);
  expect(zeroed.has(19_000, 1)).toBe(false);
});
