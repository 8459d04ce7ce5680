import { describe, expect, it } from "vitest";
import type { ErrorCode } from "../../../src/base/error-codes.js";
import { ZcowError } from "../../../src/base/errors.js";
import { GiB, KiB, MiB } from "../../../src/base/units.js";
import {
  effectiveMaxAppend,
  MAX_ZONES,
  validateZoneConfig,
  type ZoneConfigInput,
} from "../../../src/zoned/zone-config.js";

const GOOD: ZoneConfigInput = {
  model: 1,
  zoneSize: 64 * MiB,
  zoneCapacity: 64 * MiB,
  conventionalZones: 0,
  maxActiveZones: 0,
  maxOpenZones: 0,
};
const DISK = 768 * MiB;

function refusal(
  change: Partial<ZoneConfigInput>,
  diskSize = DISK,
  clusterSize: number | undefined = 64 * KiB,
): ZcowError {
  try {
    validateZoneConfig({ ...GOOD, ...change }, diskSize, clusterSize);
  } catch (error) {
    if (error instanceof ZcowError) return error;
    throw error;
  }
  throw new Error("the configuration was accepted");
}

describe("validateZoneConfig", () => {
  it("accepts the plain configuration and computes the zone count", () => {
    const { config, warnings, readOnly } = validateZoneConfig(GOOD, DISK, 64 * KiB);
    expect(config).toMatchObject({ zoneCount: 12, maxActiveZones: 0, maxOpenZones: 0, maxAppendBytes: undefined });
    expect(warnings).toEqual([]);
    expect(readOnly).toBe(false);
  });

  it("counts a short last zone", () => {
    expect(validateZoneConfig(GOOD, 65 * MiB, 64 * KiB).config.zoneCount).toBe(2);
  });

  const refused: readonly (readonly [string, Partial<ZoneConfigInput>, ErrorCode, string, number | bigint])[] = [
    ["model 2 (host-aware)", { model: 2 }, "ZONED_MODEL", "zoned", 1],
    ["a zone size of 0, before anything divides by it", { zoneSize: 0 }, "ZONED_ZONE_SIZE", "zone_size", 1],
    ["a zone size that is no power of two", { zoneSize: 96 * MiB }, "ZONED_ZONE_SIZE_POWER", "zone_size", 64 * MiB],
    [
      "a zone size below the cluster size",
      { zoneSize: 32 * KiB, zoneCapacity: 512 },
      "ZONED_ZONE_SIZE_CLUSTER",
      "zone_size",
      64 * KiB,
    ],
    ["capacity 0", { zoneCapacity: 0 }, "ZONED_CAPACITY", "zone_capacity", 512],
    ["a capacity above the zone size", { zoneCapacity: 64 * MiB + 512 }, "ZONED_CAPACITY", "zone_capacity", 64 * MiB],
    ["a capacity of odd bytes", { zoneCapacity: 1000 }, "ZONED_CAPACITY_ALIGNMENT", "zone_capacity", 512],
    ["a wrong stored zone count", { zoneCount: 13 }, "ZONED_ZONE_COUNT", "nr_zones", 12],
    ["as many conventional zones as zones", { conventionalZones: 12 }, "ZONED_CONVENTIONAL", "conventional_zones", 11],
    ["an append limit of odd bytes", { maxAppendBytes: 1000 }, "ZONED_MAX_APPEND", "max_append_bytes", 512],
    [
      "an append limit above the capacity",
      { maxAppendBytes: 65 * MiB },
      "ZONED_MAX_APPEND",
      "max_append_bytes",
      64 * MiB,
    ],
    ["a negative limit", { maxOpenZones: -1 }, "INVALID_ARGUMENT", "max_open_zones", Number.MAX_SAFE_INTEGER],
    [
      "a limit that is not a number",
      { maxActiveZones: Number.NaN },
      "INVALID_ARGUMENT",
      "max_active_zones",
      Number.MAX_SAFE_INTEGER,
    ],
  ];
  it.each(refused)("refuses %s, naming field, value and limit", (_name, change, code, field, limit) => {
    const error = refusal(change);
    expect(error.code).toBe(code);
    expect(error.data).toMatchObject({ field, limit });
    const value = Object.values(change)[0];
    expect(error.data.value).toBe(value);
    expect(error.message).toContain(`${field} ${value}`);
  });

  it("refuses a disk of 0 bytes", () => {
    expect(refusal({}, 0).code).toBe("ZONED_ZONE_COUNT");
  });

  it("refuses more than 2^20 zones and accepts exactly that many", () => {
    const change = { zoneSize: 64 * KiB, zoneCapacity: 64 * KiB };
    const error = refusal(change, (MAX_ZONES + 1) * 64 * KiB);
    expect(error.code).toBe("ZONED_TOO_MANY_ZONES");
    expect(error.data).toMatchObject({ value: MAX_ZONES + 1, limit: MAX_ZONES });
    expect(validateZoneConfig({ ...GOOD, ...change }, MAX_ZONES * 64 * KiB, 64 * KiB).config.zoneCount).toBe(MAX_ZONES);
  });

  it("keeps sizes of 4 GiB and more whole", () => {
    const size = 8 * GiB;
    const { config } = validateZoneConfig({ ...GOOD, zoneSize: size, zoneCapacity: size - 512 }, 5 * size, 64 * KiB);
    expect(config).toMatchObject({ zoneSize: size, zoneCapacity: size - 512, zoneCount: 5 });
  });

  it("refuses a disk size that is not a multiple of 512", () => {
    expect(refusal({}, DISK + 100).code).toBe("ZONED_DISK_SIZE");
  });

  it("a stored append limit of 0 leaves the capacity as the only limit", () => {
    const { config } = validateZoneConfig({ ...GOOD, maxAppendBytes: 0 }, DISK, 64 * KiB);
    expect(config.maxAppendBytes).toBe(64 * MiB);
    expect(effectiveMaxAppend(config)).toBe(64 * MiB);
  });
});

describe("limits that are merely too large", () => {
  it("max_active above the sequential zones is clamped with a warning, not an error", () => {
    const { config, warnings } = validateZoneConfig(
      { ...GOOD, conventionalZones: 2, maxActiveZones: 99 },
      DISK,
      64 * KiB,
    );
    expect(config.maxActiveZones).toBe(10);
    expect(warnings.map((warning) => warning.code)).toEqual(["ZONED_MAX_ACTIVE_CLAMPED"]);
    expect(warnings[0]?.message).toContain("max_active_zones 99 is above the number of sequential zones 10");
  });

  it("max_open above the sequential zones is clamped when max_active is not set", () => {
    const { config, warnings } = validateZoneConfig({ ...GOOD, maxOpenZones: 13 }, DISK, 64 * KiB);
    expect(config).toMatchObject({ maxOpenZones: 12, maxActiveZones: 0 });
    expect(warnings.map((warning) => warning.code)).toEqual(["ZONED_MAX_OPEN_CLAMPED"]);
  });

  it("max_open above max_active is clamped to it, and max_active is left alone", () => {
    const { config, warnings } = validateZoneConfig({ ...GOOD, maxOpenZones: 8, maxActiveZones: 6 }, DISK, 64 * KiB);
    expect(config).toMatchObject({ maxOpenZones: 6, maxActiveZones: 6 });
    expect(warnings).toHaveLength(1);
  });

  it("max_open alone is kept as it is", () => {
    expect(validateZoneConfig({ ...GOOD, maxOpenZones: 3 }, DISK, 64 * KiB).config).toMatchObject({
      maxOpenZones: 3,
      maxActiveZones: 0,
    });
  });
});

describe("images older than the alignment rules", () => {
  const old = { strict: false };

  it("a zone size that is no power of two opens read-only with a warning that names the rule", () => {
    const result = validateZoneConfig({ ...GOOD, zoneSize: 96 * MiB }, DISK, 64 * KiB, old);
    expect(result.readOnly).toBe(true);
    expect(result.warnings.map((warning) => warning.code)).toEqual(["ZONED_ZONE_SIZE_POWER"]);
    expect(result.config.zoneCount).toBe(8);
  });

  it("every broken alignment rule is named", () => {
    const result = validateZoneConfig({ ...GOOD, zoneSize: 100_000, zoneCapacity: 99_999 }, MiB + 1, 64 * KiB, old);
    expect(result.warnings.map((warning) => warning.code)).toEqual([
      "ZONED_ZONE_SIZE_POWER",
      "ZONED_ZONE_SIZE_CLUSTER",
      "ZONED_CAPACITY_ALIGNMENT",
      "ZONED_DISK_SIZE",
    ]);
  });

  it("rules about meaning still hold", () => {
    expect(() => validateZoneConfig({ ...GOOD, zoneCapacity: 65 * MiB }, DISK, 64 * KiB, old)).toThrow(
      /above zone_size/,
    );
  });
});
