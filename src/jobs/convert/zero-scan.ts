import { MiB } from "../../base/units.js";

/** Zeros to compare with: as many as the largest piece. */
const ZEROS = Buffer.alloc(2 * MiB);

/** A part of a buffer, in bytes. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** Whether `bytes` (at most 2 MiB) are all zero. */
export function isZero(bytes: Uint8Array): boolean {
  return isZeroRange(bytes, 0, bytes.length);
}

/** Of data the first or the last byte is seldom zero: then the call is saved. */
function isZeroRange(bytes: Uint8Array, start: number, end: number): boolean {
  if (bytes[start] !== 0 || bytes[end - 1] !== 0) return start === end;
  return ZEROS.compare(bytes, start, end, 0, end - start) === 0;
}

/**
 * The parts of `bytes` that hold data, looked at in units of `unit` bytes (at most 2 MiB); neighbouring ones are joined. The
 * first unit ends at the next multiple of `unit` on the disk, when `offset` is where the bytes belong there.
 */
export function dataSpans(bytes: Uint8Array, offset: number, unit: number): Span[] {
  const spans: Span[] = [];
  let start = -1;
  for (let at = 0; at < bytes.length; ) {
    const next = Math.min(bytes.length, at + unit - ((offset + at) % unit));
    const zero = isZeroRange(bytes, at, next);
    if (!zero && start < 0) start = at;
    if (zero && start >= 0) {
      spans.push({ start, end: at });
      start = -1;
    }
    at = next;
  }
  if (start >= 0) spans.push({ start, end: bytes.length });
  return spans;
}
