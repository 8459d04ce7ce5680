import { expect, it } from "vitest";
import { DeferredFrees, type FreedRange } from "../../../../src/formats/qcow2/deferred-frees.js";

const CLUSTER = 65536;

function drop(frees: DeferredFrees, clusters: readonly number[]): void {
  for (const cluster of clusters) frees.add(cluster * CLUSTER, CLUSTER);
}

/** What comes out, in clusters: first and count. */
function taken(frees: DeferredFrees): [number, number][] {
  const all: [number, number][] = [];
  for (let range = frees.next(); range !== undefined; range = frees.next()) all.push(clustersOf(range));
  return all;
}

function clustersOf({ offset, length }: FreedRange): [number, number] {
  return [offset / CLUSTER, length / CLUSTER];
}

it("puts the clusters of zones that were written in turns together", () => {
  const frees = new DeferredFrees();
  drop(frees, [10, 12, 14, 16]);
  drop(frees, [11, 13, 15, 20]);
  frees.settle(frees.freeze(), true);
  expect(taken(frees)).toEqual([
    [10, 7],
    [20, 1],
  ]);
});

it("gives clusters that were freed twice back twice", () => {
  const frees = new DeferredFrees();
  frees.add(4 * CLUSTER, 2 * CLUSTER);
  frees.add(3 * CLUSTER, 2 * CLUSTER);
  frees.add(4 * CLUSTER, CLUSTER);
  frees.settle(frees.freeze(), true);
  const counts = new Map<number, number>();
  for (const [first, count] of taken(frees)) {
    for (let cluster = first; cluster < first + count; cluster++) counts.set(cluster, (counts.get(cluster) ?? 0) + 1);
  }
  expect(counts).toEqual(
    new Map([
      [3, 1],
      [4, 3],
      [5, 1],
    ]),
  );
});

it("keeps what a failed write-back covered waiting, and what came meanwhile", () => {
  const frees = new DeferredFrees();
  drop(frees, [7, 9]);
  const batch = frees.freeze();
  drop(frees, [3]);
  frees.settle(batch, false);
  expect(frees.hasGone).toBe(false);
  expect(frees.next()).toBeUndefined();
  frees.settle(frees.freeze(), true);
  expect(taken(frees)).toEqual([
    [3, 1],
    [7, 1],
    [9, 1],
  ]);
});

it("tries what could not be given back after all others", () => {
  const frees = new DeferredFrees();
  drop(frees, [1, 3, 5]);
  frees.settle(frees.freeze(), true);
  const failed = frees.next() as FreedRange;
  expect(clustersOf(failed)).toEqual([1, 1]);
  frees.putBack(failed);
  drop(frees, [0, 2]);
  frees.settle(frees.freeze(), true);
  expect(taken(frees)).toEqual([
    [3, 1],
    [5, 1],
    [1, 1],
    [0, 1],
    [2, 1],
  ]);
  expect(frees.hasGone).toBe(false);
});
