import { SECTOR_SIZE } from "../base/units.js";
import { ZONE_CONDITION, ZONE_TYPE, type ZoneDescriptor } from "../zoned/zone-state.js";

/** One zone as qemu-io reports it; positions and lengths in sectors of 512 bytes. */
export function zoneLine(zone: ZoneDescriptor): string {
  return (
    `start: ${sectors(zone.start)}, len ${sectors(zone.length)}, cap ${sectors(zone.capacity)}, ` +
    `wptr ${sectors(zone.writePointer)}, zcond:${ZONE_CONDITION[zone.state]}, [type: ${ZONE_TYPE[zone.type]}]\n`
  );
}

function sectors(bytes: number): string {
  return `0x${Math.floor(bytes / SECTOR_SIZE).toString(16)}`;
}
