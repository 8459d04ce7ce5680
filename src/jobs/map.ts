import type { BlockDevice, BlockExtent } from "../block/block-device.js";

/** A run of the disk whose bytes are stored in one way. Positions and lengths in bytes. */
export interface MapEntry {
  readonly start: number;
  readonly length: number;
  /** 0 = this image, 1 = its backing image, and so on. */
  readonly depth: number;
  /** The image of that depth has a say about these bytes. */
  readonly present: boolean;
  /** Reads as zeros. */
  readonly zero: boolean;
  /** Stored in the file. */
  readonly data: boolean;
  /** Where in the file, when the run lies there one to one. */
  readonly offset: number | undefined;
  /** The file that `offset` counts in. */
  readonly file: string;
}

/**
 * Where the bytes of [start, start + length) of `device` lie, in order, each run as long as possible. The range
 * is cut at the end of the disk.
 */
export async function* mapImage(device: BlockDevice, start = 0, length = device.size): AsyncGenerator<MapEntry> {
  const end = Math.min(device.size, start + length);
  if (start >= end) return;
  let run: MapEntry | undefined;
  for await (const extent of device.extents(start, end - start)) {
    const entry = entryOf(extent, device.name);
    if (run !== undefined && continues(run, entry)) {
      run = { ...run, length: run.length + entry.length };
      continue;
    }
    if (run !== undefined) yield run;
    run = entry;
  }
  if (run !== undefined) yield run;
}

function entryOf(extent: BlockExtent, file: string): MapEntry {
  return {
    start: extent.offset,
    length: extent.length,
    depth: extent.depth,
    present: extent.kind !== "unallocated",
    zero: extent.zero,
    data: extent.kind === "data",
    offset: extent.hostOffset,
    file: extent.file ?? file,
  };
}

function continues(run: MapEntry, next: MapEntry): boolean {
  const sameKind =
    run.depth === next.depth &&
    run.present === next.present &&
    run.zero === next.zero &&
    run.data === next.data &&
    run.file === next.file;
  if (!sameKind) return false;
  return run.offset === undefined ? next.offset === undefined : next.offset === run.offset + run.length;
}
