import { SECTOR_SIZE } from "../../base/units.js";
import { isZero } from "../convert/zero-scan.js";

/** Offset in bytes of the first sector (512 bytes, counted from the start) in which the two differ; -1: they are equal. */
export function firstDifference(a: Uint8Array, b: Uint8Array): number {
  if (Buffer.compare(a, b) === 0) return -1;
  return firstSector(a.length, (from, to) => Buffer.compare(a.subarray(from, to), b.subarray(from, to)) !== 0);
}

/** Offset in bytes of the first sector of `bytes` (at most 2 MiB) that is not zero; -1: all are. */
export function firstNonZero(bytes: Uint8Array): number {
  if (isZero(bytes)) return -1;
  return firstSector(bytes.length, (from, to) => !isZero(bytes.subarray(from, to)));
}

function firstSector(length: number, differs: (from: number, to: number) => boolean): number {
  for (let from = 0; from < length; from += SECTOR_SIZE) {
    if (differs(from, Math.min(length, from + SECTOR_SIZE))) return from;
  }
  return -1;
}
