import type { ErrorCode } from "../../../src/base/error-codes.js";
import { isZcowError, type ZcowError } from "../../../src/base/errors.js";
import { zoneIndex } from "../../../src/base/units.js";
import { validateZoneConfig, type ZoneConfigInput } from "../../../src/zoned/zone-config.js";
import { ZoneModel } from "../../../src/zoned/zone-model.js";
import { applyPlan, planAll, planRange, type ZoneOperation, zonesOfRange } from "../../../src/zoned/zone-operations.js";
import type { ZoneState } from "../../../src/zoned/zone-state.js";

export const ZONE = 64 * 1024;
export const CAPACITY = 40 * 1024;
/** Zones 0 and 1 are conventional, 2..7 sequential, 8 is sequential and cut short after 12 KiB. */
export const DISK = 8 * ZONE + 12 * 1024;
export const CONVENTIONAL = 2;
/** The zone most tests work on. */
export const Z = zoneIndex(2);
export const START = Z * ZONE;
export const END = START + CAPACITY;

export interface ModelOptions extends Partial<ZoneConfigInput> {
  readonly diskSize?: number;
  readonly writePointers?: ArrayLike<number>;
}

export function makeModel(options: ModelOptions = {}): ZoneModel {
  const { diskSize = DISK, writePointers, ...input } = options;
  const { config } = validateZoneConfig(
    {
      zoneSize: ZONE,
      zoneCapacity: CAPACITY,
      conventionalZones: CONVENTIONAL,
      maxActiveZones: 0,
      maxOpenZones: 0,
      ...input,
    },
    diskSize,
    4096,
  );
  return new ZoneModel(config, diskSize, writePointers);
}

/** Runs an operation that needs no I/O to end. */
export function operate(model: ZoneModel, operation: ZoneOperation, offset: number, length = ZONE): void {
  applyPlan(model, planRange(model, operation, zonesOfRange(model, operation, offset, length)));
}

export function operateAll(model: ZoneModel, operation: ZoneOperation): void {
  applyPlan(model, planAll(model, operation));
}

/** A write whose I/O ends at once. */
export function write(model: ZoneModel, offset: number, length: number): void {
  const ticket = model.submitWrite(offset, length);
  if (ticket !== undefined && model.complete(ticket) !== undefined) throw new Error("not acknowledged at once");
}

export function append(model: ZoneModel, zoneStart: number, length: number): number {
  const ticket = model.submitAppend(zoneStart, length);
  if (model.complete(ticket) !== undefined) throw new Error("not acknowledged at once");
  return ticket.offset;
}

/** Brings zone `zone` of a fresh model into `state`, by the operations a user has. */
export function bringTo(model: ZoneModel, state: ZoneState, zone = Z): void {
  const start = zone * ZONE;
  switch (state) {
    case "empty":
    case "not-wp":
      break;
    case "implicitly-open":
      write(model, start, 4096);
      break;
    case "explicitly-open":
      write(model, start, 4096);
      operate(model, "open", start);
      break;
    case "closed":
      write(model, start, 4096);
      operate(model, "close", start);
      break;
    case "full":
      write(model, start, CAPACITY);
      break;
    case "read-only":
    case "offline":
      write(model, start, 4096);
      model.force(zone, state);
      break;
  }
  if (model.state(zone) !== state) throw new Error(`zone ${zone} is ${model.state(zone)}, not ${state}`);
}

export function refusal(action: () => unknown, code: ErrorCode): ZcowError {
  try {
    action();
  } catch (error) {
    if (isZcowError(error, code)) return error;
    throw error;
  }
  throw new Error(`nothing was refused, expected ${code}`);
}
