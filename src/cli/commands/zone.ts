import type { Command, CommandContext } from "../context.js";
import { UsageError } from "../usage-error.js";

const LOADERS: Readonly<Record<string, () => Promise<Command>>> = {
  report: async () => (await import("./zone-report.js")).zoneReportCommand,
  open: async () => (await import("./zone-manage.js")).zoneOpenCommand,
  close: async () => (await import("./zone-manage.js")).zoneCloseCommand,
  finish: async () => (await import("./zone-manage.js")).zoneFinishCommand,
  reset: async () => (await import("./zone-manage.js")).zoneResetCommand,
  append: async () => (await import("./zone-append.js")).zoneAppendCommand,
  "set-state": async () => (await import("./zone-set-state.js")).zoneSetStateCommand,
};

const HELP = `usage: zcow zone COMMAND [OPTION]... FILE [ARGUMENT]...

  report      show the zones: geometry, write pointers, states
  open        open zones explicitly (lasts while the image is open)
  close       close open zones
  finish      make zones full
  reset       empty zones: data gone, space given back, write pointer at the start
  append      write at the write pointer of a zone and show where it went
  set-state   run commands while zones are forced read-only or offline

'zcow zone COMMAND --help' explains one of them.
`;

export async function zoneCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const [first, ...rest] = args;
  if (first === "-h" || first === "--help") {
    context.output.out(HELP);
    return 0;
  }
  if (first === undefined)
    throw new UsageError("zone: which of report, open, close, finish, reset, append, set-state?");
  const load = Object.hasOwn(LOADERS, first) ? LOADERS[first] : undefined;
  if (load === undefined) throw new UsageError(`Command not found: zone ${first}`);
  return (await load())(rest, context);
}
