/**
 * Clusters mapped at or above a write pointer: what a failed write stored, what a crash left of writes that were never flushed
 * or of a reset that had not dropped its mapping yet. Readers never see them; a zone must lose them before its pointer
 * moves over them by anything but a write.
 */
import { alignDown, alignUp } from "../../../base/integers.js";
import type { ZoneIndex } from "../../../base/units.js";
import type { ZoneModel } from "../../../zoned/zone-model.js";
import { readRuns } from "../../../zoned/zone-reads.js";
import type { Qcow2Engine } from "../engine-contract.js";

/** A run of whole zones, in bytes on the disk. */
export interface ZoneRun {
  readonly offset: number;
  readonly length: number;
}

/** Neighbouring zones of an ascending list, put together. */
export function* zoneRuns(model: ZoneModel, zones: readonly ZoneIndex[]): Generator<ZoneRun> {
  const { geometry } = model;
  for (let i = 0; i < zones.length; ) {
    const first = zones[i] as ZoneIndex;
    let last = first;
    for (i += 1; i < zones.length && zones[i] === last + 1; i += 1) last = zones[i] as ZoneIndex;
    const offset = geometry.start(first);
    yield { offset, length: geometry.end(last) - offset };
  }
}

/** Makes everything past the pointers of the zones read as zeros, giving space back. In memory; durable after a flush. */
export async function dropLeftovers(engine: Qcow2Engine, model: ZoneModel, zones: readonly ZoneIndex[]): Promise<void> {
  for (const run of zoneRuns(model, zones)) {
    for (const part of readRuns(model, run.offset, run.length)) {
      if (!part.data) await dropData(engine, part.offset, part.length);
    }
  }
}

async function dropData(engine: Qcow2Engine, offset: number, length: number): Promise<void> {
  // Collected first: the mapping must not change under the iteration.
  const found: ZoneRun[] = [];
  for await (const extent of engine.extents(offset, length)) {
    if (extent.kind === "data") found.push(extent);
  }
  for (const extent of found) await erase(engine, extent.offset, extent.offset + extent.length);
}

/** Whole clusters lose their mapping, parts of clusters are zeroed. */
async function erase(engine: Qcow2Engine, offset: number, end: number): Promise<void> {
  const { clusterSize, size } = engine.geometry;
  const first = Math.min(alignUp(offset, clusterSize), end);
  const last = end === size ? end : Math.max(alignDown(end, clusterSize), first);
  if (first > offset) await engine.writeZeroes(offset, first - offset, false);
  if (last > first) await engine.discard(first, last - first, "forget");
  if (end > last) await engine.writeZeroes(last, end - last, false);
}
