import type { CommandTable } from "./command-table.js";
import type { Command, CommandContext } from "./context.js";
import { reportFailure } from "./failure.js";
import type { Output } from "./output.js";
import { UsageError } from "./usage-error.js";
import { versionText } from "./version.js";

/** Every command, in the order of `--help`. */
export const COMMANDS: CommandTable = {
  create: {
    summary: "make an image",
    stock: true,
    load: async () => (await import("./commands/create.js")).createCommand,
    manual: async () => (await import("./commands/create.js")).CREATE_MANUAL,
  },
  info: {
    summary: "show what an image is",
    stock: true,
    load: async () => (await import("./commands/info.js")).infoCommand,
    manual: async () => (await import("./commands/info.js")).INFO_MANUAL,
  },
  inspect: {
    summary: "tell what to know of a foreign image before it is opened",
    load: async () => (await import("./commands/inspect.js")).inspectCommand,
    manual: async () => (await import("./commands/inspect.js")).INSPECT_MANUAL,
  },
  check: {
    summary: "look for damage, and repair it",
    stock: true,
    load: async () => (await import("./commands/check.js")).checkCommand,
    manual: async () => (await import("./commands/check.js")).CHECK_MANUAL,
  },
  map: {
    summary: "show where the data of an image lies",
    stock: true,
    load: async () => (await import("./commands/map.js")).mapCommand,
    manual: async () => (await import("./commands/map.js")).MAP_MANUAL,
  },
  amend: {
    summary: "change the options of an image",
    stock: true,
    load: async () => (await import("./commands/amend.js")).amendCommand,
    manual: async () => (await import("./commands/amend.js")).AMEND_MANUAL,
  },
  bitmap: {
    summary: "make, change and merge the dirty bitmaps of an image",
    stock: true,
    load: async () => (await import("./commands/bitmap.js")).bitmapCommand,
    manual: async () => (await import("./commands/bitmap.js")).BITMAP_MANUAL,
  },
  resize: {
    summary: "change the size of a disk",
    stock: true,
    load: async () => (await import("./commands/resize.js")).resizeCommand,
    manual: async () => (await import("./commands/resize.js")).RESIZE_MANUAL,
  },
  compact: {
    summary: "make the file of an image shorter, without copying the image",
    load: async () => (await import("./commands/compact.js")).compactCommand,
    manual: async () => (await import("./commands/compact.js")).COMPACT_MANUAL,
  },
  snapshot: {
    summary: "list, take, apply and delete snapshots inside an image",
    stock: true,
    load: async () => (await import("./commands/snapshot.js")).snapshotCommand,
    manual: async () => (await import("./commands/snapshot.js")).SNAPSHOT_MANUAL,
  },
  compare: {
    summary: "tell whether two images hold the same",
    stock: true,
    load: async () => (await import("./commands/compare.js")).compareCommand,
    manual: async () => (await import("./commands/compare.js")).COMPARE_MANUAL,
  },
  commit: {
    summary: "bring the data of an overlay into its backing image",
    stock: true,
    load: async () => (await import("./commands/commit.js")).commitCommand,
    manual: async () => (await import("./commands/commit.js")).COMMIT_MANUAL,
  },
  rebase: {
    summary: "give an overlay another backing file",
    stock: true,
    load: async () => (await import("./commands/rebase.js")).rebaseCommand,
    manual: async () => (await import("./commands/rebase.js")).REBASE_MANUAL,
  },
  measure: {
    summary: "tell how large the file of a new image gets",
    stock: true,
    load: async () => (await import("./commands/measure.js")).measureCommand,
    manual: async () => (await import("./commands/measure.js")).MEASURE_MANUAL,
  },
  dd: {
    summary: "copy a part of an image into a new one",
    stock: true,
    load: async () => (await import("./commands/dd.js")).ddCommand,
    manual: async () => (await import("./commands/dd.js")).DD_MANUAL,
  },
  bench: {
    summary: "time a row of equal requests",
    stock: true,
    load: async () => (await import("./commands/bench.js")).benchCommand,
    manual: async () => (await import("./commands/bench.js")).BENCH_MANUAL,
  },
  convert: {
    summary: "copy an image into another format",
    stock: true,
    load: async () => (await import("./commands/convert.js")).convertCommand,
    manual: async () => (await import("./commands/convert.js")).CONVERT_MANUAL,
  },
  dump: {
    summary: "capture the metadata of an image for a bug report, and restore them",
    load: async () => (await import("./commands/dump.js")).dumpCommand,
    manual: async () => (await import("./commands/dump.js")).DUMP_MANUAL,
  },
  zone: {
    summary: "report and manage the zones of a zoned image",
    load: async () => (await import("./commands/zone.js")).zoneCommand,
    manual: async () => (await import("./commands/zone.js")).ZONE_MANUAL,
    commands: async () => (await import("./commands/zone.js")).ZONE_COMMANDS,
  },
  nvme: {
    summary: "serve images over NVMe/TCP: a Linux kernel attaches them as disks",
    load: async () => (await import("./commands/nvme.js")).nvmeCommand,
    manual: async () => (await import("./commands/nvme.js")).NVME_MANUAL,
  },
  nbd: {
    summary: "serve images over NBD, as qemu-nbd does",
    load: async () => (await import("./commands/nbd.js")).nbdCommand,
    manual: async () => (await import("./commands/nbd.js")).NBD_MANUAL,
  },
  control: {
    summary: "ask and steer a running server",
    load: async () => (await import("./commands/control.js")).controlCommand,
    manual: async () => (await import("./commands/control.js")).CONTROL_MANUAL,
  },
  completion: {
    summary: "print what makes a shell complete command lines",
    load: async () => (await import("./commands/completion.js")).completionCommand(COMMANDS),
    manual: async () => (await import("./commands/completion.js")).COMPLETION_MANUAL,
  },
  io: {
    summary: "read, write and test an image command by command, as qemu-io does",
    load: async () => (await import("./commands/io.js")).ioCommand,
    manual: async () => (await import("./commands/io.js")).IO_MANUAL,
  },
};

function helpText(context: CommandContext): string {
  const names = Object.keys(COMMANDS).filter((name) => !context.standIn || COMMANDS[name]?.stock === true);
  const column = Math.max(...names.map((name) => name.length)) + 2;
  const lines = names.map((name) => `  ${name.padEnd(column)}${COMMANDS[name]?.summary}`);
  const own = "  --json         what goes wrong, on standard error as one JSON object per line\n";
  return `usage: ${context.program} [-h | -V]${context.standIn ? "" : " [--json]"} COMMAND [OPTION]... [ARGUMENT]...

  -h, --help     show this help
  -V, --version  show the version
${context.standIn ? "" : own}
Commands:
${lines.join("\n")}

'${context.program} COMMAND --help' explains one command.
`;
}

/** Runs the command line `args`; resolves to the exit status. */
async function runCommandLine(args: readonly string[], context: CommandContext): Promise<number> {
  const [first, ...rest] = args;
  if (first === undefined) throw new UsageError("Not enough arguments");
  if (first === "-h" || first === "--help") {
    context.output.out(helpText(context));
    return 0;
  }
  if (first === "-V" || first === "--version") {
    context.output.out(versionText(context));
    return 0;
  }
  if (first.startsWith("-")) throw new UsageError(`unrecognized option '${first}'`);
  const entry = Object.hasOwn(COMMANDS, first) ? COMMANDS[first] : undefined;
  if (entry === undefined || (context.standIn && entry.stock !== true))
    throw new UsageError(`Command not found: ${first}`);
  return (await entry.load())(rest, context);
}

/** The stock tools that the program stands in for, and what then takes the command line. */
const STAND_INS: Readonly<Record<string, Command>> = {
  "qemu-img": runCommandLine,
  "qemu-io": async (args, context) => (await import("./commands/io.js")).ioCommand(args, context),
  "qemu-nbd": async (args, context) => (await import("./commands/nbd.js")).nbdCommand(args, context),
};

/**
 * Runs the program under the name it was called by: a stock tool's name makes it stand in for that tool, as does that name
 * for a command (`zcow qemu-img check ...`). Everything that goes wrong is reported; resolves to the exit status.
 */
export async function runProgram(calledAs: string, args: readonly string[], output: Output): Promise<number> {
  const tool = Object.hasOwn(STAND_INS, calledAs) ? STAND_INS[calledAs] : undefined;
  const [first = "", ...rest] = args;
  if (tool === undefined && Object.hasOwn(STAND_INS, first)) return runProgram(first, rest, output);
  const standIn = tool !== undefined;
  const plain: CommandContext = { program: standIn ? calledAs : "zcow", standIn, output };
  const wantsJson = !standIn && first === "--json";
  const context = wantsJson ? (await import("./json-errors.js")).withJsonErrors(plain) : plain;
  try {
    return await (tool ?? runCommandLine)(wantsJson ? rest : args, context);
  } catch (error) {
    return reportFailure(error, context);
  }
}
