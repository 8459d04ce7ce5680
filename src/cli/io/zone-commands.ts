import { SECTOR_SIZE } from "../../base/units.js";
import type { ForcedZoneState, ZonedDevice } from "../../block/zoned-device.js";
import { zoneLine } from "../zone-line.js";
import { BadArguments, type IoArguments, type IoCommand } from "./command.js";
import { byteNumber, piecesLength } from "./numbers.js";
import { patternOption } from "./request-options.js";
import type { IoSession } from "./session.js";
import { DEFAULT_PATTERN, patternBuffer } from "./transfers.js";

async function report(session: IoSession, { operands }: IoArguments): Promise<boolean> {
  const offset = byteNumber(operands[0]);
  const count = byteNumber(operands[1]);
  try {
    for (const zone of session.zonedDevice.report(offset, count)) session.print(zoneLine(zone));
    return true;
  } catch (error) {
    return session.show(session.failure("zone report", error));
  }
}

type ZoneOperation = (device: ZonedDevice, offset: number, length: number) => Promise<void>;

/** A command that acts on every zone of a range and prints nothing when that worked. */
function rangeCommand(name: string, alias: string, summary: string, operation: ZoneOperation): IoCommand {
  return {
    name,
    alias,
    synopsis: "offset len",
    summary,
    minimum: 2,
    maximum: 2,
    writes: true,
    run: async (session, { operands }) => {
      const offset = byteNumber(operands[0]);
      const length = byteNumber(operands[1]);
      try {
        await operation(session.zonedDevice, offset, length);
        return true;
      } catch (error) {
        return session.show(session.failure(name.replace("_", " "), error));
      }
    },
  };
}

async function append(session: IoSession, { options, operands }: IoArguments): Promise<boolean> {
  if (operands.length < 2) throw new BadArguments();
  const zoneStart = byteNumber(operands[0]);
  const length = piecesLength(operands.slice(1));
  const pattern = patternOption(options) ?? DEFAULT_PATTERN;
  try {
    session.assertInside(zoneStart, length);
    const bytes = patternBuffer(length, pattern);
    const offset = await session.zonedDevice.append(zoneStart, bytes, { fua: session.writeThrough });
    if (options.has("p")) {
      session.print(`After zap done, the append sector is 0x${(offset / SECTOR_SIZE).toString(16)}\n`);
    }
    return true;
  } catch (error) {
    return session.show(session.failure("zone append", error));
  }
}

const FORCED_STATES: readonly ForcedZoneState[] = ["read-only", "offline", "online"];

async function setState(session: IoSession, { operands }: IoArguments): Promise<boolean> {
  const offset = byteNumber(operands[0]);
  const state = FORCED_STATES.find((known) => known === operands[1]);
  if (state === undefined) {
    throw new BadArguments(`${operands[1]} is not a state to force on a zone: ${FORCED_STATES.join(", ")}\n`);
  }
  try {
    await session.zonedDevice.setZoneState(offset, state);
    return true;
  } catch (error) {
    return session.show(session.failure("zone set state", error));
  }
}

export const ZONE_COMMANDS: readonly IoCommand[] = [
  {
    name: "zone_report",
    alias: "zrp",
    synopsis: "offset number",
    summary: "report zone information",
    minimum: 2,
    maximum: 2,
    run: report,
  },
  rangeCommand("zone_open", "zo", "explicit open a range of zones in zone block device", (device, offset, length) =>
    device.openZones(offset, length),
  ),
  rangeCommand("zone_close", "zc", "close a range of zones in zone block device", (device, offset, length) =>
    device.closeZones(offset, length),
  ),
  rangeCommand("zone_finish", "zf", "finish a range of zones in zone block device", (device, offset, length) =>
    device.finishZones(offset, length),
  ),
  rangeCommand("zone_reset", "zrs", "reset a zone write pointer in zone block device", (device, offset, length) =>
    device.resetZones(offset, length),
  ),
  {
    name: "zone_append",
    alias: "zap",
    synopsis: "[-p] [-P pattern] offset len [len..]",
    summary: "append write a number of bytes at a specified offset",
    letters: "pP:",
    minimum: 2,
    writes: true,
    run: append,
    explanation: [
      "'zap -p 64M 4k 8k' writes 12 KiB at the write pointer of the zone that starts at 64 MiB.",
      "-p  show the sector (of 512 bytes) where the data went",
      "-P  fill with this byte",
    ],
  },
  {
    name: "zone_set_state",
    alias: "zss",
    synopsis: "offset read-only|offline|online",
    summary: "force a fault on a zone until the image is closed, or take it away",
    minimum: 2,
    maximum: 2,
    writes: true,
    run: setState,
  },
];
