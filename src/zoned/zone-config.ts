/**
 * The rules a zone configuration must keep, at creation and at open alike (docs/format.md,
 * "Zoned extension"). Rules about file layout (offsets, reserved bytes, feature bits) belong to the format.
 */

import type { Warning, ZcowError } from "../base/errors.js";
import { alignDown, isAligned } from "../base/integers.js";
import { SECTOR_SIZE } from "../base/units.js";
import {
  breach,
  checkCapacity,
  checkConventional,
  checkMaxAppend,
  checkModel,
  checkNumbers,
  checkZoneCount,
  checkZoneSize,
  clampLimits,
  HOST_MANAGED,
  readOnlyWarning,
  type ZoneConfigInput,
} from "./zone-config-rules.js";

export { MAX_ZONES, type ZoneConfigInput } from "./zone-config-rules.js";

/** A configuration that keeps every rule, with the limits that are in effect. Sizes in bytes. */
export interface ZoneConfig {
  readonly zoneSize: number;
  readonly zoneCapacity: number;
  readonly zoneCount: number;
  readonly conventionalZones: number;
  /** 0 = no limit; never above the number of sequential zones. */
  readonly maxActiveZones: number;
  /** 0 = no limit; never above the number of sequential zones, nor above `maxActiveZones` when that is set. */
  readonly maxOpenZones: number;
  /** The append limit of a layout that stores one; a stored 0 has become the capacity. */
  readonly maxAppendBytes: number | undefined;
}

export interface ZoneConfigOptions {
  /**
   * False for images in layouts that are older than the rules about alignment: a breach is then a warning and
   * makes the image read-only, so that nobody is locked out of their data. Default true.
   */
  readonly strict?: boolean;
}

export interface ZoneConfigResult {
  readonly config: ZoneConfig;
  /** Clamped limits, and the alignment rules that an old image breaks. */
  readonly warnings: readonly Warning[];
  /** An alignment rule is broken (only with `strict: false`): the image may only be read. */
  readonly readOnly: boolean;
}

/**
 * Checks a zone configuration against a disk of `diskSize` bytes in clusters of `clusterSize` bytes
 * (`undefined`: a disk without clusters) before anything is allocated for it.
 *
 * Limits that are merely too large are clamped, with a warning. Every other breach throws: `ZONED_MODEL`,
 * `ZONED_ZONE_SIZE`, `ZONED_ZONE_SIZE_POWER`, `ZONED_ZONE_SIZE_CLUSTER`, `ZONED_CAPACITY`, `ZONED_CAPACITY_ALIGNMENT`,
 * `ZONED_DISK_SIZE`, `ZONED_ZONE_COUNT`, `ZONED_TOO_MANY_ZONES`, `ZONED_CONVENTIONAL`, `ZONED_MAX_APPEND`.
 */
export function validateZoneConfig(
  input: ZoneConfigInput,
  diskSize: number,
  clusterSize: number | undefined,
  options: ZoneConfigOptions = {},
): ZoneConfigResult {
  const alignmentBreaches: ZcowError[] = [];
  const breachAlignment = (error: ZcowError): void => {
    if (options.strict ?? true) throw error;
    alignmentBreaches.push(error);
  };
  checkNumbers(input);
  checkModel(input.model ?? HOST_MANAGED);
  checkZoneSize(input.zoneSize, clusterSize, breachAlignment);
  checkCapacity(input.zoneCapacity, input.zoneSize, breachAlignment);
  if (!isAligned(diskSize, SECTOR_SIZE)) {
    breachAlignment(
      breach(
        "ZONED_DISK_SIZE",
        "size",
        diskSize,
        SECTOR_SIZE,
        `is not a multiple of ${SECTOR_SIZE} bytes, as a zoned disk needs`,
      ),
    );
  }
  const zoneCount = checkZoneCount(input, diskSize);
  checkConventional(input.conventionalZones, zoneCount);
  const maxAppendBytes = checkMaxAppend(input.maxAppendBytes, input.zoneCapacity);
  const limits = clampLimits(input, zoneCount - input.conventionalZones);
  return {
    config: {
      zoneSize: input.zoneSize,
      zoneCapacity: input.zoneCapacity,
      zoneCount,
      conventionalZones: input.conventionalZones,
      maxActiveZones: limits.maxActiveZones,
      maxOpenZones: limits.maxOpenZones,
      maxAppendBytes,
    },
    warnings: [...alignmentBreaches.map(readOnlyWarning), ...limits.warnings],
    readOnly: alignmentBreaches.length > 0,
  };
}

/**
 * Bytes of the largest append: the stored limit if there is one, else the zone capacity; never more than
 * fits a zone, and a multiple of the sector size.
 */
export function effectiveMaxAppend(config: Pick<ZoneConfig, "maxAppendBytes" | "zoneCapacity">): number {
  return alignDown(Math.min(config.maxAppendBytes ?? config.zoneCapacity, config.zoneCapacity), SECTOR_SIZE);
}
