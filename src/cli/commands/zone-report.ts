import { reportZones, type ZoneReport } from "../../jobs/zone-report.js";
import { commandArguments } from "../command-arguments.js";
import {
  FORCE_SHARE_OPTION,
  FORMAT_OPTION,
  givenSecrets,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  OBJECT_OPTION,
  OUTPUT_OPTION,
  outputForm,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { jsonText } from "../json.js";
import type { CommandManual } from "../manual.js";
import { namedImage } from "../named-image.js";
import { lastValue, saying } from "../options.js";
import { terminal } from "../terminal.js";
import { bytesArgument, countArgument, withZonedImage } from "../zone-image.js";
import { zoneLine } from "../zone-line.js";
import { zonePicture } from "../zone-picture.js";
import { zoneSummary, zoneTable } from "../zone-table.js";

const FORMS = ["table", "picture", "json", "qemu"] as const;

export const ZONE_REPORT_MANUAL: CommandManual = {
  name: "zone report",
  synopsis: ["[--output table|picture|json|qemu] [-o OFFSET] [-n COUNT] [-f FORMAT] [-U] FILE"],
  about: ["Shows the zones of an image as they are on disk."],
  options: [
    {
      ...OUTPUT_OPTION,
      about: "table (default), picture (one cell per zone), json, or qemu (the lines of qemu-io's zrp)",
      choices: FORMS,
    },
    {
      name: "offset",
      short: "o",
      long: "offset",
      value: "OFFSET",
      about: "start with the zone that holds this byte",
    },
    { name: "count", short: "n", long: "count", value: "COUNT", about: "at most so many zones" },
    saying(FORMAT_OPTION, "qcow2; recognised by content when left out"),
    FORCE_SHARE_OPTION,
    OBJECT_OPTION,
    IMAGE_OPTS_OPTION,
    HELP_OPTION,
  ],
  notes: ["On a terminal the table has the picture above it. NO_COLOR and TERM=dumb turn colours off."],
};

export async function zoneReportCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, ZONE_REPORT_MANUAL, context);
  if (parsed === undefined) return 0;
  const form = outputForm(parsed, FORMS);
  const offset = bytesArgument("offset", lastValue(parsed, "offset") ?? "0");
  const count = lastValue(parsed, "count");
  const limit = count === undefined ? undefined : countArgument("count", count);
  const image = { ...namedImage(parsed, await givenSecrets(parsed)), readOnly: true };
  await withZonedImage(image, context, async (device) => {
    const report = reportZones(device, offset, limit);
    context.output.out(render(form, image.path, report));
  });
  return 0;
}

function render(form: (typeof FORMS)[number], path: string, report: ZoneReport): string {
  switch (form) {
    case "json":
      return jsonText(reportTree(path, report));
    case "qemu":
      return report.zones.map(zoneLine).join("");
    case "picture":
      return zonePicture(report.zones, terminal());
    case "table": {
      const style = terminal();
      const picture = style.interactive ? `${zonePicture(report.zones, style)}\n` : "";
      return `${zoneSummary(path, report)}\n${picture}${zoneTable(report.zones)}`;
    }
  }
}

/** The report for programs; sizes and positions in bytes. */
function reportTree(path: string, { limits, zones }: ZoneReport): unknown {
  return {
    filename: path,
    model: limits.model,
    "zone-size": limits.zoneSize,
    "zone-capacity": limits.zoneCapacity,
    "zone-count": limits.zoneCount,
    "conventional-zones": limits.conventionalZones,
    "max-open-zones": limits.maxOpenZones,
    "max-active-zones": limits.maxActiveZones,
    "max-append-bytes": limits.maxAppendBytes,
    zones: zones.map((zone) => ({
      index: zone.index,
      start: zone.start,
      length: zone.length,
      capacity: zone.capacity,
      "write-pointer": zone.writePointer,
      state: zone.state,
      type: zone.type,
    })),
  };
}
