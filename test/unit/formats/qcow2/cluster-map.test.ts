import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ClusterMap } from "../../../../src/formats/qcow2/cluster-map.js";

describe("cluster map", () => {
  it("behaves as a Map under any sequence of sets and deletes", () => {
    const cluster = fc.oneof(fc.nat(40), fc.nat(2 ** 31 - 1), fc.integer({ min: 2 ** 31, max: 2 ** 44 }));
    const step = fc.tuple(fc.boolean(), cluster, fc.integer({ min: 1, max: 255 }));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
        const map = new ClusterMap();
        const model = new Map<number, number>();
        for (const [isSet, key, value] of steps) {
          if (isSet) {
            map.set(key, value);
            model.set(key, value);
          } else {
            map.delete(key);
            model.delete(key);
          }
        }
        expect(map.size).toBe(model.size);
        for (const [, key] of steps) expect(map.get(key)).toBe(model.get(key) ?? 0);
      }),
    );
  });

  it("keeps clusters apart that differ only above 2^32", () => {
    const map = new ClusterMap();
    map.set(5, 1);
    expect(map.get(5 + 2 ** 32)).toBe(0);
    map.set(5 + 2 ** 32, 2);
    expect([map.get(5), map.get(5 + 2 ** 32)]).toEqual([1, 2]);
  });
});
