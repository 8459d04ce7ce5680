import { type Warning, type WarningSink, ZcowError } from "../../../base/errors.js";
import type { ZoneConfigResult } from "../../../zoned/zone-config.js";
import { ZoneModel } from "../../../zoned/zone-model.js";
import type { Qcow2Engine } from "../engine-contract.js";
import type { ZonedExtension } from "../zoned-extension.js";
import { validateZonedConfig } from "../zoned-validation.js";
import { convertToCurrent } from "./convert-layout.js";
import { PointerTable } from "./pointer-table.js";
import { reconstructPointers } from "./reconstruct.js";
import { decodePointers } from "./stored-pointers.js";
import { ZonedQcow2Device } from "./zoned-device.js";

export interface OpenZonesOptions {
  readonly onWarning?: WarningSink | undefined;
  /**
   * An image without a table (layout `seed`) opens read-only with reconstructed pointers. True: when the engine
   * is writable, convert it to layout `current` first. Default false.
   */
  readonly upgradeSeedLayout?: boolean | undefined;
  /** The engine reads this snapshot: its write pointers are the ones that were kept with it. */
  readonly snapshot?: string | undefined;
  /** Zones keep their clusters when they are reset. Default false. */
  readonly keepZoneSpace?: boolean | undefined;
}

/**
 * The zoned device over an engine whose header has a zoned extension. Throws the `ZONED_*` codes of the configuration, and of
 * the table's entries when one is bad (`check` lists and repairs them).
 */
export async function openZonedDevice(engine: Qcow2Engine, options: OpenZonesOptions = {}): Promise<ZonedQcow2Device> {
  const warn = options.onWarning ?? ((): void => undefined);
  let zoned = zonedExtension(engine);
  const validated = validate(engine, zoned);
  for (const warning of validated.warnings) warn(warning);
  const { config } = validated;
  if (options.snapshot !== undefined) {
    const { pointersOfNamed } = await import("./snapshot-pointers.js");
    const pointers = await pointersOfNamed(engine, zoned, options.snapshot);
    return new ZonedQcow2Device(engine, new ZoneModel(config, engine.geometry.size, pointers), undefined);
  }
  if (zoned.tableOffset === undefined) {
    const pointers = await reconstructPointers(engine, config);
    if (!engine.writable || options.upgradeSeedLayout !== true) {
      warn(reconstructed(engine));
      return new ZonedQcow2Device(engine, new ZoneModel(config, engine.geometry.size, pointers), undefined);
    }
    await convertToCurrent(engine, pointers);
    zoned = zonedExtension(engine);
  }
  const table = await PointerTable.load(engine, zoned, zoned.tableOffset ?? 0);
  let pointers = storedIn(engine, zoned, table);
  if (engine.header.snapshotCount > 0) {
    const { appliedPointers } = await import("./snapshot-pointers.js");
    pointers = (await appliedPointers(engine, zoned, table)) ?? pointers;
  }
  const model = new ZoneModel(config, engine.geometry.size, pointers);
  warnOfActiveZones(model, warn);
  return new ZonedQcow2Device(engine, model, validated.readOnly ? undefined : table, options.keepZoneSpace);
}

/**
 * Converts a zoned image to layout `current`. The engine must be writable and have no other user; it stays open.
 * Throws as `openZonedDevice`, and the code of a rule that the image breaks and the current layout insists on.
 */
export async function convertZonedLayout(engine: Qcow2Engine): Promise<void> {
  const zoned = zonedExtension(engine);
  if (zoned.layout === "current") return;
  await convertToCurrent(engine, await storedPointers(engine, zoned));
}

async function storedPointers(engine: Qcow2Engine, zoned: ZonedExtension): Promise<Float64Array> {
  if (zoned.tableOffset === undefined) return reconstructPointers(engine, validate(engine, zoned).config);
  return storedIn(engine, zoned, await PointerTable.load(engine, zoned, zoned.tableOffset));
}

function storedIn({ geometry, storage }: Qcow2Engine, zoned: ZonedExtension, table: PointerTable): Float64Array {
  return decodePointers(table.bytes, zoned, geometry.size, storage.name);
}

function zonedExtension(engine: Qcow2Engine): ZonedExtension {
  const { zoned } = engine.header;
  if (zoned !== undefined) return zoned;
  throw new ZcowError("NOT_SUPPORTED", `${engine.storage.name} is not a zoned image`, {
    data: { path: engine.storage.name },
  });
}

function validate(engine: Qcow2Engine, zoned: ZonedExtension): ZoneConfigResult {
  return validateZonedConfig(zoned, engine.geometry, "open");
}

function reconstructed(engine: Qcow2Engine): Warning {
  return {
    code: "ZONED_POINTERS_RECONSTRUCTED",
    message: `${engine.storage.name} stores no write pointers: they were reconstructed from what is allocated, and the image can only be read; convert it to zone layout 'current' to write to it`,
    data: { path: engine.storage.name },
  };
}

function warnOfActiveZones(model: ZoneModel, warn: WarningSink): void {
  const { active, maxActive } = model.resources;
  if (maxActive === 0 || active <= maxActive) return;
  warn({
    code: "ZONED_ACTIVE_EXCEEDED",
    message: `${active} zones are partly written, but max_active_zones is ${maxActive}: no further zone can become active until enough are finished or reset`,
    data: { structure: "write-pointer table", field: "max_active_zones", value: active, limit: maxActive },
  });
}
