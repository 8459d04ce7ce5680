import type { BlockDevice, ZonedLimits } from "../../block/block-device.js";
import { isZonedDevice } from "../../block/zoned-device.js";

/** In what the zones of two zoned disks differ. */
export interface ZoneDifference {
  /** Index of the zone; undefined when the disks are divided in different ways. */
  readonly zone: number | undefined;
  /** What differs, by its name in {@link ZonedLimits} or the report. */
  readonly what: string;
  readonly first: number | string;
  readonly second: number | string;
}

/** What makes two disks the same to a host, limits of resources aside: they can be changed. */
const GEOMETRY = [
  "zoneSize",
  "zoneCapacity",
  "conventionalZones",
  "zoneCount",
] as const satisfies readonly (keyof ZonedLimits)[];

/** The first difference in how two zoned disks are divided into zones. */
export function geometryDifference(first: ZonedLimits, second: ZonedLimits): ZoneDifference | undefined {
  const what = GEOMETRY.find((name) => first[name] !== second[name]);
  return what === undefined ? undefined : { zone: undefined, what, first: first[what], second: second[what] };
}

/** The first zone in which the write pointers of two zoned disks of the same geometry differ, or in which only one is full. */
export function pointerDifference(first: BlockDevice, second: BlockDevice): ZoneDifference | undefined {
  if (!isZonedDevice(first) || !isZonedDevice(second)) return undefined;
  const others = second.report();
  for (const zone of first.report()) {
    const other = others[zone.index];
    if (other === undefined) return undefined;
    const [a, b] = [zone.writePointer, other.writePointer];
    if (a !== b) return { zone: zone.index, what: "writePointer", first: a - zone.start, second: b - zone.start };
    if ((zone.state === "full") !== (other.state === "full")) {
      return { zone: zone.index, what: "state", first: zone.state, second: other.state };
    }
  }
  return undefined;
}
