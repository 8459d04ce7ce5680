/** Controller properties: the registers of a controller over Fabrics (NVMe base, "Controller Properties"). */
import type { TargetLimits } from "./limits.js";

export const PROPERTY = {
  capabilities: 0x00,
  version: 0x08,
  configuration: 0x14,
  status: 0x1c,
  readyTimeouts: 0x68,
} as const;

/** NVMe 2.0. */
export const VERSION = 0x0002_0000;

/** Milliseconds until a controller is ready or disabled, in the unit of CAP.TO, 500 ms: closing zones and flushing takes time. */
const READY_TIMEOUT = 60;

export const CONFIGURATION = {
  enable: 1,
  commandSetShift: 4,
  commandSetMask: 7,
  pageSizeShift: 7,
  pageSizeMask: 15,
  arbitrationShift: 11,
  arbitrationMask: 7,
  shutdownShift: 14,
  shutdownMask: 3,
} as const;

export const CONTROLLER_STATUS = { ready: 1, fatal: 2, shutdownOccurring: 1 << 2, shutdownComplete: 2 << 2 } as const;

/** CC.CSS: the NVM command set alone, all supported command sets, admin commands alone. */
const COMMAND_SETS_SELECTED: ReadonlySet<number> = new Set([0, 6, 7]);

/** CAP, low and high half. Bit 43 (several command sets) is what makes Linux look for zoned namespaces. */
export function capabilities(limits: TargetLimits): { low: number; high: number } {
  const contiguousQueues = 1 << 16;
  const low = (limits.queueEntries - 1) | contiguousQueues | (READY_TIMEOUT << 24);
  const nvmCommandSet = 1 << (37 - 32);
  const severalCommandSets = 1 << (43 - 32);
  const readyWithMediaSupported = 1 << (59 - 32);
  return { low, high: nvmCommandSet | severalCommandSets | readyWithMediaSupported };
}

/** CRTO: the time until ready, media included. */
export const READY_TIMEOUTS = READY_TIMEOUT;

/** True when a controller can be enabled with this configuration. */
export function isUsableConfiguration(configuration: number): boolean {
  const { commandSetShift, commandSetMask, pageSizeShift, pageSizeMask, arbitrationShift, arbitrationMask } =
    CONFIGURATION;
  return (
    COMMAND_SETS_SELECTED.has((configuration >>> commandSetShift) & commandSetMask) &&
    ((configuration >>> pageSizeShift) & pageSizeMask) === 0 &&
    ((configuration >>> arbitrationShift) & arbitrationMask) === 0
  );
}
