/** Checks of the limits that a server chose. */
import { ZcowError } from "../../base/errors.js";
import { isAligned, isPowerOfTwo } from "../../base/integers.js";
import { KiB, MiB } from "../../base/units.js";
import { DEFAULT_LIMITS, type TargetLimits } from "./limits.js";

/** The defaults with what was chosen. Throws `INVALID_ARGUMENT` for a value that hosts would refuse or that cannot work. */
export function checkedLimits(chosen: Partial<TargetLimits>): TargetLimits {
  const limits: TargetLimits = { ...DEFAULT_LIMITS, ...chosen };
  const { transferBytes, appendBytes } = limits;
  requireRange("ioQueues", limits.ioQueues, 1, 1024);
  requireRange("queueEntries", limits.queueEntries, 2, 4096);
  requireRange("controllers", limits.controllers, 1, 4096);
  requireRange("inCapsuleBytes", limits.inCapsuleBytes, 0, 64 * KiB, 16);
  requireRange("h2cDataBytes", limits.h2cDataBytes, 4 * KiB, 16 * MiB, 4 * KiB);
  requirePower("transferBytes", transferBytes, 8 * KiB, 16 * MiB);
  requirePower("appendBytes", appendBytes, 4 * KiB, transferBytes);
  requireRange("writeBytesInFlight", limits.writeBytesInFlight, transferBytes, 1024 * MiB);
  requireRange("backlogBytes", limits.backlogBytes, 64 * KiB, 1024 * MiB);
  requireRange("handshakeMilliseconds", limits.handshakeMilliseconds, 1, 600_000);
  return limits;
}

function requireRange(field: keyof TargetLimits, value: number, least: number, most: number, unit = 1): void {
  if (Number.isInteger(value) && value >= least && value <= most && isAligned(value, unit)) return;
  throw invalid(field, value, `must be a multiple of ${unit} from ${least} to ${most}`, most);
}

function requirePower(field: keyof TargetLimits, value: number, least: number, most: number): void {
  if (isPowerOfTwo(value) && value >= least && value <= most) return;
  throw invalid(field, value, `must be a power of two from ${least} to ${most}`, most);
}

function invalid(field: string, value: number, rule: string, limit: number): ZcowError {
  return new ZcowError("INVALID_ARGUMENT", `Target limit ${field} is ${value}: it ${rule}`, {
    data: { field, value, limit },
  });
}
