import type { StorageExtent } from "./storage.js";

/** Joins neighbours of one kind and drops empty runs, so makers of extents can emit them as they come. */
export function* mergeExtents(runs: Iterable<StorageExtent>): Generator<StorageExtent> {
  let held: StorageExtent | undefined;
  for (const run of runs) {
    if (run.length === 0) continue;
    if (held === undefined) {
      held = run;
    } else if (held.hole === run.hole) {
      held = { offset: held.offset, length: held.length + run.length, hole: held.hole };
    } else {
      yield held;
      held = run;
    }
  }
  if (held !== undefined) yield held;
}

/** The range as data up to `size`, then as a hole: what a storage without a map of holes can tell. */
export function* dataUpTo(size: number, at: number, length: number): Generator<StorageExtent> {
  const dataEnd = Math.min(Math.max(size, at), at + length);
  if (dataEnd > at) yield { offset: at, length: dataEnd - at, hole: false };
  if (dataEnd < at + length) yield { offset: dataEnd, length: at + length - dataEnd, hole: true };
}
