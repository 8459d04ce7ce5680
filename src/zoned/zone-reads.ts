/** What a read of a zoned disk may see: data below the committed pointer, zeros above it. */
import { type ZoneIndex, zoneIndex } from "../base/units.js";
import type { ZoneModel } from "./zone-model.js";

/** A part of a read, all data or all zeros. Bytes on the disk. */
export interface ReadRun {
  readonly offset: number;
  readonly length: number;
  readonly data: boolean;
}

/** First byte of the zone that readers must see as zero. */
function readableEnd(model: ZoneModel, zone: ZoneIndex): number {
  return model.geometry.isConventional(zone) ? model.geometry.end(zone) : model.committedPointer(zone);
}

/** True when the whole range lies in one zone below what is written: the common case, without garbage. */
export function isAllData(model: ZoneModel, offset: number, length: number): boolean {
  const zone = model.geometry.indexOf(offset);
  return offset + length <= readableEnd(model, zone);
}

/** The range in runs, in order, neighbours of one kind merged. Nothing for an empty range. */
export function* readRuns(model: ZoneModel, offset: number, length: number): Generator<ReadRun> {
  const end = offset + length;
  let runStart = offset;
  let runData = true;
  for (let at = offset; at < end; ) {
    const zone = model.geometry.indexOf(at);
    const readable = readableEnd(model, zone);
    const data = at < readable;
    const until = Math.min(data ? readable : model.geometry.end(zone), end);
    if (data !== runData) {
      if (at > runStart) yield { offset: runStart, length: at - runStart, data: runData };
      runStart = at;
      runData = data;
    }
    at = until;
  }
  if (end > runStart) yield { offset: runStart, length: end - runStart, data: runData };
}

/** Throws `ZONE_OFFLINE` when the range touches an offline zone. */
export function requireReadable(model: ZoneModel, offset: number, length: number): void {
  if (length === 0) return;
  const { geometry } = model;
  model.requireOnline("read", geometry.indexOf(offset), zoneIndex(geometry.indexOf(offset + length - 1)));
}
