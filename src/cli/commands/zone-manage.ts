import type { ZonedDevice } from "../../block/zoned-device.js";
import type { ZoneDescriptor } from "../../zoned/zone-state.js";
import { commandArguments } from "../command-arguments.js";
import {
  FORMAT_OPTION,
  givenSecrets,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  OBJECT_OPTION,
  QUIET_OPTION,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import type { CommandManual } from "../manual.js";
import { namedImage } from "../named-image.js";
import { isGiven, lastValue, type ParsedArguments, saying } from "../options.js";
import { UsageError } from "../usage-error.js";
import { bytesArgument, countArgument, withZonedImage } from "../zone-image.js";
import { stateName } from "../zone-picture.js";

type Operation = (device: ZonedDevice, offset: number, length: number) => Promise<void>;

interface Management {
  readonly manual: CommandManual;
  readonly run: Operation;
  /** Said on standard error afterwards. */
  readonly note?: string;
}

function manualOf(verb: string, about: string): CommandManual {
  return {
    name: `zone ${verb}`,
    synopsis: ["[-f FORMAT] [-q] FILE (OFFSET [LENGTH] | --zone N[-M] | --all)"],
    about: [about],
    options: [
      { name: "zone", short: "z", long: "zone", value: "N[-M]", about: "zones by number, from 0" },
      { name: "all", short: "a", long: "all", about: "every zone" },
      saying(FORMAT_OPTION, "qcow2; recognised by content when left out"),
      OBJECT_OPTION,
      IMAGE_OPTS_OPTION,
      saying(QUIET_OPTION, "do not show what changed"),
      HELP_OPTION,
    ],
    notes: [
      "OFFSET and LENGTH are a range in bytes, whole zones (suffixes k, M, G, T); one zone when LENGTH is left out.",
    ],
  };
}

async function manage(management: Management, args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, management.manual, context);
  if (parsed === undefined) return 0;
  const [path] = parsed.positionals;
  if (path === undefined) throw new UsageError("Expecting one image file name");
  const named = namedImage({ ...parsed, positionals: [path] }, await givenSecrets(parsed));
  const image = { ...named, forceShare: false, readOnly: false };
  await withZonedImage(image, context, async (device) => {
    const { offset, length } = chosenRange(parsed, device);
    const before = device.report();
    await management.run(device, offset, length);
    if (!isGiven(parsed, "quiet")) context.output.out(changes(before, device.report()));
  });
  if (management.note !== undefined && !isGiven(parsed, "quiet")) context.output.err(`note: ${management.note}\n`);
  return 0;
}

interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

function chosenRange(parsed: ParsedArguments, device: ZonedDevice): ByteRange {
  const [, offset, length, ...more] = parsed.positionals;
  const zones = lastValue(parsed, "zone");
  const ways = [offset !== undefined, zones !== undefined, isGiven(parsed, "all")].filter(Boolean).length;
  if (ways !== 1 || more.length > 0) throw new UsageError("Expecting one of OFFSET [LENGTH], --zone and --all");
  if (zones !== undefined) return zonesRange(zones, device);
  if (offset === undefined) return { offset: 0, length: device.size };
  const start = bytesArgument("offset", offset);
  if (length !== undefined) return { offset: start, length: bytesArgument("length", length) };
  // One zone; the offset itself is left for the device to judge.
  const [zone] = device.report(start, 1);
  return { offset: start, length: zone?.length ?? 0 };
}

function zonesRange(text: string, device: ZonedDevice): ByteRange {
  const [first = "", last = first, ...more] = text.split("-");
  const from = countArgument("zone", first);
  const to = countArgument("zone", last);
  const zones = device.report();
  const [start, end] = [zones[from], zones[to]];
  if (more.length > 0 || start === undefined || end === undefined || from > to) {
    throw new UsageError(`zone '${text}' is not a range of the zones 0 to ${zones.length - 1}`, false);
  }
  return { offset: start.start, length: end.start + end.length - start.start };
}

const MOST_LINES = 32;

/** What became of the zones that changed, line by line while they are few. */
function changes(before: readonly ZoneDescriptor[], after: readonly ZoneDescriptor[]): string {
  const changed = after.filter((zone, index) => zone.state !== before[index]?.state);
  if (changed.length === 0) return "no zone changed its state\n";
  if (changed.length > MOST_LINES) return `${changed.length} zones changed their state\n`;
  return changed
    .map(
      (zone) =>
        `zone ${zone.index}: ${stateName(before[zone.index]?.state ?? zone.state)} -> ${stateName(zone.state)}\n`,
    )
    .join("");
}

export const ZONE_OPEN_MANUAL = manualOf(
  "open",
  "Opens zones explicitly. Open states live as long as the image is open: this tests whether it can be done.",
);
const OPEN: Management = {
  manual: ZONE_OPEN_MANUAL,
  run: (device, offset, length) => device.openZones(offset, length),
  note: "open states end when the image is closed, as this command does now; use 'zcow io' to keep zones open",
};
export const ZONE_CLOSE_MANUAL = manualOf(
  "close",
  "Closes open zones. On an image that nobody has open, no zone is open.",
);
const CLOSE: Management = {
  manual: ZONE_CLOSE_MANUAL,
  run: (device, offset, length) => device.closeZones(offset, length),
};
export const ZONE_FINISH_MANUAL = manualOf(
  "finish",
  "Makes zones full, whatever is written in them. Durable when the command ends.",
);
const FINISH: Management = {
  manual: ZONE_FINISH_MANUAL,
  run: (device, offset, length) => device.finishZones(offset, length),
};
export const ZONE_RESET_MANUAL = manualOf(
  "reset",
  "Empties zones: their data is gone and its space given back. Durable when the command ends.",
);
const RESET: Management = {
  manual: ZONE_RESET_MANUAL,
  run: (device, offset, length) => device.resetZones(offset, length),
};

type ZoneCommand = (args: readonly string[], context: CommandContext) => Promise<number>;

export const zoneOpenCommand: ZoneCommand = (args, context) => manage(OPEN, args, context);
export const zoneCloseCommand: ZoneCommand = (args, context) => manage(CLOSE, args, context);
export const zoneFinishCommand: ZoneCommand = (args, context) => manage(FINISH, args, context);
export const zoneResetCommand: ZoneCommand = (args, context) => manage(RESET, args, context);
