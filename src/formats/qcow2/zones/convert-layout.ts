/**
 * Conversion of a zoned image to layout `current`, in place.
 *
 *     step                              | a crash in this step leaves
 *     ----------------------------------+--------------------------------------------------------------
 *     clusters allocated, table written | the old image; at worst leaked clusters
 *     engine flush                      | the same; afterwards the table and its refcounts are durable
 *     header: extension, feature bit,   | the old or the new header, one write of one cluster:
 *     feature name                      | the old image with leaked clusters, or the new one
 *     flush (part of the header update) |
 *     old table freed                   | the new image; at worst the old table leaked
 */

import { ceilDiv } from "../../../base/integers.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { hostOffset } from "../../../base/units.js";
import type { Qcow2Engine } from "../engine-contract.js";
import { INCOMPATIBLE, ZONED_FEATURE_NAMES } from "../features.js";
import type { Qcow2Header } from "../header.js";
import { withFeatureNames, withZonedExtension } from "../header-encode.js";
import { writePointerTable, writePointerTableBytes } from "../write-pointer-table.js";
import type { ZonedExtension } from "../zoned-extension.js";
import { validateZonedConfig } from "../zoned-validation.js";
import { POINTER_TABLE_NAME } from "./pointer-table.js";

/**
 * Gives the image layout `current`, with a table that holds `pointers` (bytes on the disk, one per zone; all data below them
 * must be durable). The engine must be writable and have no other user. Throws the `ZONED_*` code of a rule that the
 * current layout has and the image breaks; nothing has changed then.
 */
export async function convertToCurrent(engine: Qcow2Engine, pointers: ArrayLike<number>): Promise<void> {
  const old = engine.header.zoned;
  if (old === undefined || old.layout === "current") return;
  const { clusterSize, size } = engine.geometry;
  const clusters = ceilDiv(writePointerTableBytes(old.zoneCount), clusterSize);
  const limits = validateZonedConfig(old, { size, clusterSize }, "create").config;
  const tableOffset = await engine.allocateClusters(clusters);
  const zoned: ZonedExtension = {
    layout: "current",
    zoneCount: old.zoneCount,
    zoneSize: old.zoneSize,
    zoneCapacity: old.zoneCapacity,
    conventionalZones: old.conventionalZones,
    maxActiveZones: limits.maxActiveZones,
    maxOpenZones: limits.maxOpenZones,
    maxAppendBytes: undefined,
    tableOffset,
    tableByteOrder: "big",
    tail: new Uint8Array(0),
  };
  const wait = engine.storage.write(tableOffset, writePointerTable(zoned, pointers, size, clusters * clusterSize));
  if (isPromise(wait)) await wait;
  await engine.flush();
  await engine.updateHeader((header) => zonedHeader(header, zoned));
  await freeOldTable(engine, old);
}

function zonedHeader(header: Qcow2Header, zoned: ZonedExtension): Qcow2Header {
  const features = { ...header.features, incompatible: header.features.incompatible | INCOMPATIBLE.zoned };
  const hasName = header.featureNames.some(({ type, bit }) => type === "incompatible" && bit === 5);
  const named = hasName || header.featureNames.length === 0 ? header : withFeatureNames(header, ZONED_FEATURE_NAMES);
  return withZonedExtension({ ...named, features }, zoned);
}

async function freeOldTable(engine: Qcow2Engine, old: ZonedExtension): Promise<void> {
  if (old.tableOffset === undefined) return;
  engine.unprotectMetadata(POINTER_TABLE_NAME);
  const clusters = ceilDiv(writePointerTableBytes(old.zoneCount), engine.geometry.clusterSize);
  await engine.freeClusters(hostOffset(old.tableOffset), clusters);
  await engine.flush();
}
