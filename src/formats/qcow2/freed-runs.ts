import { alignDown } from "../../base/integers.js";
import type { ImageState } from "./image-state.js";
import type { MappingRun } from "./mapping.js";
import { clusterStart, clustersTouched } from "./positions.js";

/**
 * Notes that the `count` clusters that `run` begins in are no longer mapped, with all their subclusters: what they took in the
 * image file is given back in due course. An external data file counts nothing.
 */
export function freeRun(state: ImageState, run: MappingRun, count: number): void {
  const { geometry, data, frees, compressed } = state;
  switch (run.kind) {
    case "data":
    case "zero-preallocated":
    case "preallocated":
      if (data.inImage) frees.add(alignDown(run.host, geometry.clusterSize), count * geometry.clusterSize);
      return;
    case "compressed": {
      const touched = clustersTouched(run.host, run.length, geometry);
      compressed.forget(run.host);
      frees.add(clusterStart(touched.first, geometry), touched.count * geometry.clusterSize);
      return;
    }
    default:
  }
}
