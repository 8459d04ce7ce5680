/** One builder per way a zoned device refuses a request: message and data say the same. */
import type { ErrorCode } from "../base/error-codes.js";
import { type ErrorData, ZcowError } from "../base/errors.js";
import type { ZoneIndex } from "../base/units.js";
import type { ZoneState } from "./zone-state.js";

function zoneError(code: ErrorCode, zone: ZoneIndex, text: string, data: ErrorData, cause?: unknown): ZcowError {
  const structure = `zone ${zone}`;
  return new ZcowError(code, `Zone ${zone}: ${text}`, { data: { structure, ...data }, cause });
}

export function invalidWrite(zone: ZoneIndex, offset: number, writePointer: number): ZcowError {
  const text = `write at ${offset} does not start at the write pointer ${writePointer}`;
  return zoneError("ZONE_INVALID_WRITE", zone, text, { offset, value: offset, limit: writePointer });
}

/** `limit`: the offset that the write must not cross. */
export function boundary(zone: ZoneIndex, offset: number, length: number, limit: number): ZcowError {
  const text = `write of ${length} bytes at ${offset} ends at ${offset + length}, past ${limit} where the zone's writable part ends`;
  return zoneError("ZONE_BOUNDARY", zone, text, { offset, length, value: offset + length, limit });
}

/** A write that starts among the conventional zones and runs into a sequential one. */
export function crossesIntoSequential(zone: ZoneIndex, offset: number, length: number, limit: number): ZcowError {
  const text = `write of ${length} bytes at ${offset} runs past ${limit}, where the sequential zones start`;
  return zoneError("ZONE_BOUNDARY", zone, text, { offset, length, value: offset + length, limit });
}

export function zoneFull(zone: ZoneIndex, offset: number): ZcowError {
  return zoneError("ZONE_FULL", zone, `write at ${offset} refused: the zone is full; reset it to write again`, {
    offset,
  });
}

export function readOnlyZone(zone: ZoneIndex, operation: string): ZcowError {
  return zoneError("ZONE_READ_ONLY", zone, `${operation} refused: the zone is read-only`, {});
}

export function offlineZone(zone: ZoneIndex, operation: string): ZcowError {
  return zoneError("ZONE_OFFLINE", zone, `${operation} refused: the zone is offline`, {});
}

export function tooManyOpen(zone: ZoneIndex, open: number, limit: number): ZcowError {
  const text = `cannot be opened: ${open} zones are open, the limit is ${limit}, and no implicitly open zone can be closed for it`;
  return zoneError("ZONE_TOO_MANY_OPEN", zone, text, { field: "max_open_zones", value: open, limit });
}

export function tooManyActive(zone: ZoneIndex, active: number, limit: number): ZcowError {
  const text = `cannot become active: ${active} zones are active and the limit is ${limit}`;
  return zoneError("ZONE_TOO_MANY_ACTIVE", zone, text, { field: "max_active_zones", value: active, limit });
}

export function invalidTransition(zone: ZoneIndex, operation: string, state: ZoneState): ZcowError {
  return zoneError("ZONE_INVALID_TRANSITION", zone, `${operation} refused: the zone is ${state}`, { value: state });
}

export function notSequential(zone: ZoneIndex, operation: string): ZcowError {
  return zoneError("ZONE_NOT_SEQUENTIAL", zone, `${operation} refused: the zone is conventional`, {});
}

export function misalignedRange(operation: string, offset: number, length: number, zoneSize: number): ZcowError {
  const text = `${operation}: offset ${offset} and length ${length} are not whole zones of ${zoneSize} bytes`;
  return new ZcowError("ZONE_MISALIGNED", text, { data: { offset, length, limit: zoneSize } });
}

export function misalignedStart(operation: string, offset: number, zoneSize: number): ZcowError {
  const text = `${operation}: offset ${offset} is not the start of a zone of ${zoneSize} bytes`;
  return new ZcowError("ZONE_MISALIGNED", text, { data: { offset, value: offset, limit: zoneSize } });
}

export function misalignedWrite(operation: string, offset: number, length: number, unit: number): ZcowError {
  const text = `${operation}: offset ${offset} and length ${length} must be multiples of ${unit} bytes, the length above 0`;
  return new ZcowError("ZONE_MISALIGNED", text, { data: { offset, length, limit: unit } });
}

export function appendTooLarge(zone: ZoneIndex, length: number, limit: number): ZcowError {
  const text = `append of ${length} bytes is longer than the largest append, ${limit} bytes`;
  return zoneError("ZONE_APPEND_TOO_LARGE", zone, text, { field: "max_append_bytes", length, value: length, limit });
}

export function outOfRange(operation: string, offset: number, length: number, diskSize: number): ZcowError {
  const text = `${operation}: ${length} bytes at offset ${offset} do not fit a disk of ${diskSize} bytes`;
  return new ZcowError("OUT_OF_RANGE", text, { data: { offset, length, limit: diskSize } });
}

/** `failedAt`: where the write that failed started; the write pointer is back there. */
export function aborted(zone: ZoneIndex, failedAt: number, cause: unknown): ZcowError {
  const text = `refused: the write at ${failedAt} failed, and writes that were in flight with it have not all ended`;
  return zoneError("ZONE_ABORTED", zone, text, { offset: failedAt, value: failedAt }, cause);
}

export function discardOfSequential(zone: ZoneIndex, offset: number, length: number): ZcowError {
  const text = `discard of ${length} bytes at ${offset} refused: data of a sequential zone goes by a reset only`;
  return zoneError("NOT_SUPPORTED", zone, text, { offset, length });
}
