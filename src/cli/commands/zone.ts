import type { CommandTable } from "../command-table.js";
import { HELP_OPTION } from "../common-options.js";
import type { CommandContext } from "../context.js";
import { helpText } from "../help-text.js";
import type { CommandManual } from "../manual.js";
import { UsageError } from "../usage-error.js";

/** The commands behind `zone`. */
export const ZONE_COMMANDS: CommandTable = {
  report: {
    summary: "show the zones: geometry, write pointers, states",
    load: async () => (await import("./zone-report.js")).zoneReportCommand,
    manual: async () => (await import("./zone-report.js")).ZONE_REPORT_MANUAL,
  },
  open: {
    summary: "open zones explicitly (lasts while the image is open)",
    load: async () => (await import("./zone-manage.js")).zoneOpenCommand,
    manual: async () => (await import("./zone-manage.js")).ZONE_OPEN_MANUAL,
  },
  close: {
    summary: "close open zones",
    load: async () => (await import("./zone-manage.js")).zoneCloseCommand,
    manual: async () => (await import("./zone-manage.js")).ZONE_CLOSE_MANUAL,
  },
  finish: {
    summary: "make zones full",
    load: async () => (await import("./zone-manage.js")).zoneFinishCommand,
    manual: async () => (await import("./zone-manage.js")).ZONE_FINISH_MANUAL,
  },
  reset: {
    summary: "empty zones: data gone, space given back, write pointer at the start",
    load: async () => (await import("./zone-manage.js")).zoneResetCommand,
    manual: async () => (await import("./zone-manage.js")).ZONE_RESET_MANUAL,
  },
  append: {
    summary: "write at the write pointer of a zone and show where it went",
    load: async () => (await import("./zone-append.js")).zoneAppendCommand,
    manual: async () => (await import("./zone-append.js")).ZONE_APPEND_MANUAL,
  },
  "set-state": {
    summary: "run commands while zones are forced read-only or offline",
    load: async () => (await import("./zone-set-state.js")).zoneSetStateCommand,
    manual: async () => (await import("./zone-set-state.js")).ZONE_SET_STATE_MANUAL,
  },
};

export const ZONE_MANUAL: CommandManual = {
  name: "zone",
  synopsis: ["COMMAND [OPTION]... FILE [ARGUMENT]..."],
  about: ["Reports and manages the zones of a zoned image."],
  options: [HELP_OPTION],
  lists: [{ heading: "Commands", terms: Object.entries(ZONE_COMMANDS).map(([name, { summary }]) => [name, summary]) }],
  notes: ["'zcow zone COMMAND --help' explains one of them."],
};

export async function zoneCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const [first, ...rest] = args;
  if (first === "-h" || first === "--help") {
    context.output.out(helpText(ZONE_MANUAL, context));
    return 0;
  }
  if (first === undefined) throw new UsageError(`zone: which of ${Object.keys(ZONE_COMMANDS).join(", ")}?`);
  const entry = Object.hasOwn(ZONE_COMMANDS, first) ? ZONE_COMMANDS[first] : undefined;
  if (entry === undefined) throw new UsageError(`Command not found: zone ${first}`);
  return (await entry.load())(rest, context);
}
