/** The single rules of a zone configuration; `validateZoneConfig` puts them together. */
import type { ErrorCode } from "../base/error-codes.js";
import { type ErrorData, type Warning, ZcowError } from "../base/errors.js";
import { ceilDiv, isAligned, isPowerOfTwo } from "../base/integers.js";
import { SECTOR_SIZE } from "../base/units.js";

/**
 * Most zones a disk may have. Bounds the write-pointer table (8 MiB) and the memory of the model; real
 * drives stay two orders of magnitude below.
 */
export const MAX_ZONES = 2 ** 20;

/** The zone model number of a host-managed device, as stored and as given to `zone_model`. */
export const HOST_MANAGED = 1;

/** A zone configuration as the user asked for it or as an image stores it. Sizes in bytes. */
export interface ZoneConfigInput {
  /** 1 = host-managed. Default 1. */
  readonly model?: number;
  readonly zoneSize: number;
  readonly zoneCapacity: number;
  /** As stored; left out when it is to be computed. */
  readonly zoneCount?: number;
  readonly conventionalZones: number;
  /** 0 = no limit. */
  readonly maxActiveZones: number;
  /** 0 = no limit. */
  readonly maxOpenZones: number;
  /** Largest append, where one is stored; `undefined` or 0: the zone capacity is the only limit. */
  readonly maxAppendBytes?: number | undefined;
}

type FieldName = NonNullable<ErrorData["field"]>;

/** Options by the field they set, as the user writes them. */
const OPTION_OF: Readonly<Record<FieldName, string>> = {
  zoned: "zone.mode",
  zone_size: "zone.size",
  zone_capacity: "zone.capacity",
  conventional_zones: "zone.conventional_zones",
  max_active_zones: "zone.max_active_zones",
  max_open_zones: "zone.max_open_zones",
  max_append_bytes: "zone.max_append_bytes",
  size: "size",
};

/** "field value explanation", with the same facts as data. */
export function breach(
  code: ErrorCode,
  field: FieldName,
  value: number,
  limit: number,
  explanation: string,
): ZcowError {
  const option = OPTION_OF[field];
  return new ZcowError(code, `Zoned extension: ${field} ${value} ${explanation}`, {
    data: { structure: "zoned extension", field, value, limit, ...(option === undefined ? {} : { option }) },
  });
}

export function readOnlyWarning(error: ZcowError): Warning {
  return { code: error.code, message: `${error.message}; the image can only be read`, data: error.data };
}

export function checkNumbers(input: ZoneConfigInput): void {
  const fields: readonly (readonly [FieldName, number | undefined])[] = [
    ["zoned", input.model],
    ["zone_size", input.zoneSize],
    ["zone_capacity", input.zoneCapacity],
    ["nr_zones", input.zoneCount],
    ["conventional_zones", input.conventionalZones],
    ["max_active_zones", input.maxActiveZones],
    ["max_open_zones", input.maxOpenZones],
    ["max_append_bytes", input.maxAppendBytes],
  ];
  for (const [field, value] of fields) {
    if (value === undefined || (Number.isSafeInteger(value) && value >= 0)) continue;
    throw breach(
      "INVALID_ARGUMENT",
      field,
      value,
      Number.MAX_SAFE_INTEGER,
      "is not a whole number between 0 and 2^53-1",
    );
  }
}

export function checkModel(model: number): void {
  if (model === HOST_MANAGED) return;
  throw breach(
    "ZONED_MODEL",
    "zoned",
    model,
    HOST_MANAGED,
    `is not a known zone model (${HOST_MANAGED} is host-managed)`,
  );
}

export function checkZoneSize(
  zoneSize: number,
  clusterSize: number | undefined,
  breachAlignment: (error: ZcowError) => void,
): void {
  if (zoneSize === 0)
    throw breach("ZONED_ZONE_SIZE", "zone_size", zoneSize, 1, "is not allowed: a zone holds at least one cluster");
  if (!isPowerOfTwo(zoneSize)) {
    breachAlignment(
      breach(
        "ZONED_ZONE_SIZE_POWER",
        "zone_size",
        zoneSize,
        2 ** Math.floor(Math.log2(zoneSize)),
        "is not a power of two",
      ),
    );
  }
  const unit = clusterSize ?? SECTOR_SIZE;
  if (isAligned(zoneSize, unit)) return;
  const name = clusterSize === undefined ? "sector size" : "cluster size";
  breachAlignment(
    breach("ZONED_ZONE_SIZE_CLUSTER", "zone_size", zoneSize, unit, `is not a multiple of the ${name} ${unit}`),
  );
}

export function checkCapacity(capacity: number, zoneSize: number, breachAlignment: (error: ZcowError) => void): void {
  if (capacity === 0)
    throw breach(
      "ZONED_CAPACITY",
      "zone_capacity",
      capacity,
      SECTOR_SIZE,
      `is below the smallest capacity ${SECTOR_SIZE}`,
    );
  if (capacity > zoneSize)
    throw breach("ZONED_CAPACITY", "zone_capacity", capacity, zoneSize, `is above zone_size ${zoneSize}`);
  if (isAligned(capacity, SECTOR_SIZE)) return;
  breachAlignment(
    breach("ZONED_CAPACITY_ALIGNMENT", "zone_capacity", capacity, SECTOR_SIZE, `is not a multiple of ${SECTOR_SIZE}`),
  );
}

export function checkZoneCount(input: ZoneConfigInput, diskSize: number): number {
  const needed = ceilDiv(diskSize, input.zoneSize);
  if (needed === 0)
    throw breach("ZONED_ZONE_COUNT", "nr_zones", 0, 1, "is not allowed: a disk of 0 bytes has no zones");
  if (needed > MAX_ZONES) {
    throw breach(
      "ZONED_TOO_MANY_ZONES",
      "nr_zones",
      needed,
      MAX_ZONES,
      `(disk size ${diskSize} in zones of ${input.zoneSize}) is above the limit ${MAX_ZONES}`,
    );
  }
  if (input.zoneCount !== undefined && input.zoneCount !== needed) {
    throw breach(
      "ZONED_ZONE_COUNT",
      "nr_zones",
      input.zoneCount,
      needed,
      `is wrong: disk size ${diskSize} in zones of ${input.zoneSize} makes ${needed}`,
    );
  }
  return needed;
}

export function checkConventional(conventionalZones: number, zoneCount: number): void {
  if (conventionalZones < zoneCount) return;
  throw breach(
    "ZONED_CONVENTIONAL",
    "conventional_zones",
    conventionalZones,
    zoneCount - 1,
    `leaves no sequential zone: there are ${zoneCount} zones`,
  );
}

export function checkMaxAppend(maxAppendBytes: number | undefined, capacity: number): number | undefined {
  if (maxAppendBytes === undefined) return undefined;
  // Published writers store 0 for "no limit of its own".
  if (maxAppendBytes === 0) return capacity;
  if (!isAligned(maxAppendBytes, SECTOR_SIZE)) {
    throw breach(
      "ZONED_MAX_APPEND",
      "max_append_bytes",
      maxAppendBytes,
      SECTOR_SIZE,
      `is not a multiple of ${SECTOR_SIZE}`,
    );
  }
  if (maxAppendBytes > capacity) {
    throw breach(
      "ZONED_MAX_APPEND",
      "max_append_bytes",
      maxAppendBytes,
      capacity,
      `is above zone_capacity ${capacity}`,
    );
  }
  return maxAppendBytes;
}

export interface ClampedLimits {
  readonly maxActiveZones: number;
  readonly maxOpenZones: number;
  readonly warnings: readonly Warning[];
}

export function clampLimits(input: ZoneConfigInput, sequentialZones: number): ClampedLimits {
  const warnings: Warning[] = [];
  const clamp = (field: "max_active_zones" | "max_open_zones", value: number, limit: number, what: string): number => {
    if (value <= limit) return value;
    const code = field === "max_active_zones" ? "ZONED_MAX_ACTIVE_CLAMPED" : "ZONED_MAX_OPEN_CLAMPED";
    const message = `Zoned extension: ${field} ${value} is above ${what} ${limit}; ${limit} is in effect`;
    const option = OPTION_OF[field] ?? field;
    warnings.push({ code, message, data: { structure: "zoned extension", field, value, limit, option } });
    return limit;
  };
  const zones = "the number of sequential zones";
  const maxActiveZones = clamp("max_active_zones", input.maxActiveZones, sequentialZones, zones);
  let maxOpenZones = clamp("max_open_zones", input.maxOpenZones, sequentialZones, zones);
  if (maxActiveZones !== 0) maxOpenZones = clamp("max_open_zones", maxOpenZones, maxActiveZones, "max_active_zones");
  return { maxActiveZones, maxOpenZones, warnings };
}
