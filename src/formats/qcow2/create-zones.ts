import { type WarningSink, ZcowError } from "../../base/errors.js";
import { ceilDiv } from "../../base/integers.js";
import { MiB, SECTOR_SIZE } from "../../base/units.js";
import type { ZonedLimits } from "../../block/block-device.js";
import { MAX_ZONES } from "../../zoned/zone-config.js";
import {
  type CreateQcow2Options,
  type CreateZoneOptions,
  describeValue,
  OPTION_SPECS,
  optionValue,
} from "./create-options.js";
import type { ImagePlan } from "./create-validation.js";
import type { ZonedExtension } from "./zoned-extension.js";
import { encodeZonedExtension, LAYOUT_FORMATS } from "./zoned-layouts.js";
import { validateZonedConfig } from "./zoned-validation.js";

const DEFAULT_ZONE_SIZE = 256 * MiB;
const NO_TAIL = new Uint8Array(0);
/** Largest append limit that fits a 32-bit field of bytes and is a multiple of the sector size. */
const MAX_STORED_APPEND = 2 ** 32 - SECTOR_SIZE;

/** Zones of a backing image, which its overlay takes over with their write pointers. */
export interface InheritedZones {
  readonly limits: ZonedLimits;
  /** Bytes of the disk. */
  readonly diskSize: number;
  /** Bytes on the disk, one per zone. */
  readonly pointers: Float64Array;
}

/**
 * The zones of a new image, checked and with clamped limits, or undefined when it is not zoned. The place of the
 * write-pointer table is still open (0). Throws `INVALID_ARGUMENT`, `ZONED_VERSION`, the `ZONED_*` codes of
 * `validateZonedConfig`, and `ZONED_LAYOUT_FIELD` for a value that the layout has no room for.
 */
export function planZones(
  options: CreateQcow2Options,
  image: ImagePlan,
  onWarning: WarningSink,
  inherited?: InheritedZones,
): ZonedExtension | undefined {
  const zone = inherited === undefined ? (options.zone ?? {}) : inheritZones(options, image, inherited);
  if (zone.mode !== "host-managed") {
    refuseStrayOptions(options);
    return undefined;
  }
  const { geometry } = image;
  if (geometry.version !== 3) {
    throw new ZcowError(
      "ZONED_VERSION",
      "Option compat: 0.10 is version 2, but a zoned image needs version 3 (compat=1.1)",
      {
        data: { option: "compat", value: "0.10", limit: "1.1" },
      },
    );
  }
  if (image.preallocation !== "off") {
    throw new ZcowError(
      "INVALID_ARGUMENT",
      `Option preallocation: ${image.preallocation} cannot be had for a zoned image: the first reset of a zone would undo it`,
      { data: { option: "preallocation", value: image.preallocation, limit: "off" } },
    );
  }
  const asked = fillDefaults(zone, geometry.size);
  if (inherited !== undefined && asked.tableOffset === undefined) throw layoutWithoutTable(asked.layout);
  const { config, warnings } = validateZonedConfig(asked, geometry, "create");
  for (const warning of warnings) onWarning(warning);
  const stored = withAppendLimit({ ...asked, ...config, maxAppendBytes: config.maxAppendBytes }, zone, onWarning);
  // Throws for a value that the layout has no room for, before the file is touched.
  encodeZonedExtension(stored);
  return stored;
}

/** The options of an overlay: the geometry is that of the zones behind it, the limits may be others. */
function inheritZones(options: CreateQcow2Options, image: ImagePlan, inherited: InheritedZones): CreateZoneOptions {
  const { limits } = inherited;
  const fixed = {
    "zone.size": [options.zone?.size, limits.zoneSize],
    "zone.capacity": [options.zone?.capacity, limits.zoneCapacity],
    "zone.conventional_zones": [options.zone?.conventionalZones, limits.conventionalZones],
    size: [image.geometry.size, inherited.diskSize],
  } as const;
  for (const [option, [asked, behind]] of Object.entries(fixed)) {
    if (asked === undefined || asked === behind) continue;
    throw new ZcowError(
      "INVALID_ARGUMENT",
      `Option ${option}: ${asked} differs from ${behind} of the zoned backing image, whose zones an overlay takes over`,
      { data: { option, value: asked, limit: behind } },
    );
  }
  return {
    maxOpenZones: limits.maxOpenZones,
    maxActiveZones: limits.maxActiveZones,
    ...options.zone,
    mode: "host-managed",
    size: limits.zoneSize,
    capacity: limits.zoneCapacity,
    conventionalZones: limits.conventionalZones,
  };
}

function layoutWithoutTable(layout: string): ZcowError {
  return new ZcowError(
    "INVALID_ARGUMENT",
    `Option zone.layout: ${layout} stores no write pointers, and an overlay of a zoned image has to keep those it takes over`,
    { data: { option: "zone.layout", value: layout } },
  );
}

/** An option that would have no effect is a mistake that is better told than obeyed. */
function refuseStrayOptions(options: CreateQcow2Options): void {
  for (const { name, property } of OPTION_SPECS) {
    const value = optionValue(options, property);
    if (!property.startsWith("zone.") || property === "zone.mode" || value === undefined) continue;
    throw new ZcowError(
      "INVALID_ARGUMENT",
      `Option ${name}: ${describeValue(value)} is given, but zone.mode is not host-managed`,
      {
        data: { option: name, value: describeValue(value), limit: "host-managed" },
      },
    );
  }
}

function fillDefaults(zone: CreateZoneOptions, diskSize: number): ZonedExtension {
  const layout = zone.layout ?? "current";
  const zoneSize = zone.size ?? DEFAULT_ZONE_SIZE;
  const maxActiveZones = zone.maxActiveZones ?? 0;
  return {
    layout,
    zoneSize,
    zoneCapacity: zone.capacity ?? zoneSize,
    // A zone size of 0 is refused by the rules themselves.
    zoneCount: zoneSize === 0 ? 0 : Math.min(ceilDiv(diskSize, zoneSize), MAX_ZONES + 1),
    conventionalZones: zone.conventionalZones ?? 0,
    maxActiveZones,
    maxOpenZones: zone.maxOpenZones ?? maxActiveZones,
    maxAppendBytes: zone.maxAppendBytes,
    tableOffset: LAYOUT_FORMATS[layout].table === undefined ? undefined : 0,
    tableByteOrder: LAYOUT_FORMATS[layout].table?.byteOrder === "big" ? "big" : "little",
    tail: NO_TAIL,
  };
}

/** The append limit as the layout keeps it: its own field, or nothing. */
function withAppendLimit(zoned: ZonedExtension, zone: CreateZoneOptions, onWarning: WarningSink): ZonedExtension {
  if (LAYOUT_FORMATS[zoned.layout].fields.maxAppend !== undefined) {
    const derived = Math.min(zoned.zoneCapacity, MAX_STORED_APPEND);
    return {
      ...zoned,
      maxAppendBytes: zone.maxAppendBytes === undefined || zone.maxAppendBytes === 0 ? derived : zoned.maxAppendBytes,
    };
  }
  if (zone.maxAppendBytes !== undefined && zone.maxAppendBytes !== 0) {
    onWarning({
      code: "ZONED_MAX_APPEND_NOT_STORED",
      message: `Layout ${zoned.layout} has no field for zone.max_append_bytes ${zone.maxAppendBytes}; the largest append will be the zone capacity ${zoned.zoneCapacity}`,
      data: { option: "zone.max_append_bytes", value: zone.maxAppendBytes, limit: zoned.zoneCapacity },
    });
  }
  return { ...zoned, maxAppendBytes: undefined };
}
