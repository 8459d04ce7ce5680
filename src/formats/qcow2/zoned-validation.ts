import { ZcowError } from "../../base/errors.js";
import { isAligned } from "../../base/integers.js";
import { validateZoneConfig, type ZoneConfigResult } from "../../zoned/zone-config.js";
import type { UnresolvedHeader } from "./header.js";
import { TABLE_ENTRY_BYTES } from "./limits.js";
import { writePointerTableBytes } from "./write-pointer-table.js";
import type { ZonedExtension } from "./zoned-extension.js";
import { LAYOUT_FORMATS } from "./zoned-layouts.js";

/**
 * Checks the zones of an image: one function for creation and for opening. At creation every rule is strict; an image in
 * a layout that is older than the alignment rules opens read-only, with a warning, where it breaks them.
 * Throws the `ZONED_*` codes of `validateZoneConfig`.
 */
export function validateZonedConfig(
  zoned: ZonedExtension,
  disk: { readonly size: number; readonly clusterSize: number },
  purpose: "create" | "open",
): ZoneConfigResult {
  const { zoneSize, zoneCapacity, zoneCount, conventionalZones, maxActiveZones, maxOpenZones, maxAppendBytes } = zoned;
  return validateZoneConfig(
    { model: 1, zoneSize, zoneCapacity, zoneCount, conventionalZones, maxActiveZones, maxOpenZones, maxAppendBytes },
    disk.size,
    disk.clusterSize,
    { strict: purpose === "create" || LAYOUT_FORMATS[zoned.layout].strict },
  );
}

/**
 * The write-pointer table lies at a cluster boundary past the header, inside the file, and not over the L1 table or
 * the refcount table. Throws `ZONED_TABLE_OFFSET`, `ZONED_TABLE_OVERLAP`.
 */
export function checkTablePlacement(zoned: ZonedExtension, header: UnresolvedHeader, fileSize: number): void {
  if (zoned.tableOffset === undefined) return;
  const offset = zoned.tableOffset;
  const clusterSize = 2 ** header.clusterBits;
  const length = writePointerTableBytes(zoned.zoneCount);
  if (offset === 0) throw badOffset(offset, clusterSize, "is 0, where the header lies");
  if (!isAligned(offset, clusterSize))
    throw badOffset(offset, clusterSize, `is not a multiple of the cluster size ${clusterSize}`);
  const l1Bytes = header.l1Size * TABLE_ENTRY_BYTES;
  refuseOverlap(zoned, length, "L1 table", header.l1TableOffset, l1Bytes);
  refuseOverlap(
    zoned,
    length,
    "refcount table",
    header.refcountTableOffset,
    header.refcountTableClusters * clusterSize,
  );
  if (offset + length > fileSize) {
    throw badOffset(offset, fileSize, `puts the table of ${length} bytes past the end of the file at ${fileSize}`);
  }
}

function badOffset(offset: number, limit: number, explanation: string): ZcowError {
  return new ZcowError("ZONED_TABLE_OFFSET", `Zoned extension: zonedmeta_offset ${offset} ${explanation}`, {
    data: { structure: "zoned extension", field: "zonedmeta_offset", value: offset, limit },
  });
}

function refuseOverlap(zoned: ZonedExtension, length: number, structure: string, offset: number, bytes: number): void {
  const tableOffset = zoned.tableOffset ?? 0;
  if (tableOffset + length <= offset || offset + bytes <= tableOffset) return;
  throw new ZcowError(
    "ZONED_TABLE_OVERLAP",
    `Zoned extension: zonedmeta_offset ${tableOffset} puts the table of ${length} bytes over the ${structure} at ${offset} (${bytes} bytes)`,
    { data: { structure: "zoned extension", field: "zonedmeta_offset", value: tableOffset, limit: offset } },
  );
}
