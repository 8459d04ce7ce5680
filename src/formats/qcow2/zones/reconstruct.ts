import { zoneIndex } from "../../../base/units.js";
import type { ZoneConfig } from "../../../zoned/zone-config.js";
import { ZoneGeometry } from "../../../zoned/zone-geometry.js";
import type { Qcow2Engine } from "../engine-contract.js";

/**
 * Write pointers of an image that stores none (docs/format.md, "Older layouts"): the end of the last cluster with data
 * of each sequential zone, at most its writable end; the start of zones without one. Bytes on the disk, one per zone.
 */
export async function reconstructPointers(engine: Qcow2Engine, config: ZoneConfig): Promise<Float64Array> {
  const geometry = new ZoneGeometry(config, engine.geometry.size);
  const pointers = Float64Array.from({ length: config.zoneCount }, (_, zone) => geometry.start(zoneIndex(zone)));
  const { sequentialStart, diskSize } = geometry;
  for await (const extent of engine.extents(sequentialStart, diskSize - sequentialStart)) {
    // Zero clusters do not count: the published programs leave them behind when they reset a zone.
    if (extent.kind !== "data") continue;
    const end = extent.offset + extent.length;
    const last = geometry.indexOf(end - 1);
    for (let zone = geometry.indexOf(extent.offset); zone <= last; zone = zoneIndex(zone + 1)) {
      pointers[zone] = Math.min(end, geometry.writableEnd(zone));
    }
  }
  return pointers;
}
