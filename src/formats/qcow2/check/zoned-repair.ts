/**
 * Puts the zoned metadata of a header right, with a write-pointer table in clusters of its own. The refcounts must be in
 * order already.
 *
 *     step                              | a crash in this step leaves
 *     ----------------------------------+--------------------------------------------------------------
 *     clusters counted, table written   | the damaged image; at worst leaked clusters
 *     engine flush                      | the same; afterwards the table and its refcounts are durable
 *     header: extension, feature bit    | the old or the new header, one write of one cluster
 *     flush (part of the header update) |
 *     (old table freed by the next pass)| the new image, the old table leaked
 */

import { viewOf } from "../../../base/bytes.js";
import { alignUp, ceilDiv } from "../../../base/integers.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { MiB } from "../../../base/units.js";
import { borrowedStorage } from "../../../storage/borrowed-storage.js";
import { ClusterEngine } from "../engine.js";
import { EXTENSION } from "../extensions.js";
import { INCOMPATIBLE } from "../features.js";
import type { Qcow2Header } from "../header.js";
import { withZonedExtension } from "../header-encode.js";
import { readL1 } from "../root-table.js";
import {
  decodeWritePointer,
  encodeWritePointer,
  isWritePointerSound,
  writableEnd,
  writePointerTableBytes,
} from "../write-pointer-table.js";
import type { ZonedExtension } from "../zoned-extension.js";
import { LAYOUT_FORMATS } from "../zoned-layouts.js";
import type { CheckSession } from "./check-session.js";
import { ZoneReconstruction } from "./zone-reconstruction.js";

/** Tables are touched once each. */
const CACHE_BYTES = MiB;

/** Gives the image the zones of `remedy`; `remedy.tableOffset` is where sound entries can still be read, if anywhere. */
export async function repairZones(session: CheckSession, remedy: ZonedExtension): Promise<void> {
  const { storage, geometry } = session;
  const header: Qcow2Header = { ...session.header, zoned: undefined };
  const engine = new ClusterEngine({
    storage: borrowedStorage(storage),
    geometry,
    header,
    l1: await readL1(storage, header),
    writable: true,
    cacheBytes: CACHE_BYTES,
    onWarning: () => undefined,
  });
  try {
    const tableOffset =
      LAYOUT_FORMATS[remedy.layout].table === undefined ? undefined : await placeTable(session, engine, remedy);
    await engine.updateHeader((current) => zonedHeader(current, { ...remedy, tableOffset }));
  } finally {
    await engine.close();
  }
}

async function placeTable(session: CheckSession, engine: ClusterEngine, remedy: ZonedExtension): Promise<number> {
  const { clusterSize } = engine.geometry;
  const clusters = ceilDiv(writePointerTableBytes(remedy.zoneCount), clusterSize);
  const bytes = await makeTable(session, remedy, clusters * clusterSize);
  const tableOffset = await engine.allocateClusters(clusters);
  const wait = engine.storage.write(tableOffset, bytes);
  if (isPromise(wait)) await wait;
  const flushed = engine.flush();
  if (isPromise(flushed)) await flushed;
  return tableOffset;
}

/** A stored pointer is kept where it covers all data of its zone; else it becomes the end of that data. */
async function makeTable(session: CheckSession, zoned: ZonedExtension, length: number): Promise<Uint8Array> {
  const { size } = session.header;
  const { clusterSize } = session.geometry;
  const stored = await readStored(session, zoned);
  const reconstruction = new ZoneReconstruction(session);
  const bytes = new Uint8Array(length);
  const view = viewOf(bytes);
  for (let zone = 0; zone < zoned.zoneCount; zone++) {
    const start = zone * zoned.zoneSize;
    let pointer = start;
    if (zone >= zoned.conventionalZones) {
      const end = await reconstruction.endOfData(start, writableEnd(zoned, zone, size));
      const isSound = stored !== undefined && isWritePointerSound(stored, zone, zoned, size);
      const old = isSound ? decodeWritePointer(stored, zone, zoned, size) : start;
      pointer = alignUp(old, clusterSize) >= end ? old : end;
    }
    encodeWritePointer(view, zone, pointer, zoned, size);
  }
  return bytes;
}

async function readStored(session: CheckSession, zoned: ZonedExtension): Promise<DataView | undefined> {
  if (zoned.tableOffset === undefined) return undefined;
  const bytes = new Uint8Array(writePointerTableBytes(zoned.zoneCount));
  const wait = session.storage.read(zoned.tableOffset, bytes);
  if (isPromise(wait)) await wait;
  return viewOf(bytes);
}

function zonedHeader(header: Qcow2Header, zoned: ZonedExtension): Qcow2Header {
  const { incompatible } = header.features;
  const hasBit = LAYOUT_FORMATS[zoned.layout].featureBit;
  const bits = hasBit ? incompatible | INCOMPATIBLE.zoned : incompatible & ~INCOMPATIBLE.zoned;
  let seen = false;
  const extensions = header.extensions.filter(({ type }) => {
    if (type !== EXTENSION.zoned) return true;
    const isFirst = !seen;
    seen = true;
    return isFirst;
  });
  return withZonedExtension({ ...header, extensions, features: { ...header.features, incompatible: bits } }, zoned);
}
