import type { Command, CommandContext } from "./context.js";
import { reportFailure } from "./failure.js";
import type { Output } from "./output.js";
import { UsageError } from "./usage-error.js";
import { versionText } from "./version.js";

interface CommandEntry {
  /** One line for the list in `--help`. */
  readonly summary: string;
  /** True when the stock qemu-img has a command of this name. */
  readonly stock: boolean;
  /** Loads the command: only the one that runs is loaded. */
  readonly load: () => Promise<Command>;
}

const COMMANDS: Readonly<Record<string, CommandEntry>> = {
  create: {
    summary: "make an image",
    stock: true,
    load: async () => (await import("./commands/create.js")).createCommand,
  },
  info: {
    summary: "show what an image is",
    stock: true,
    load: async () => (await import("./commands/info.js")).infoCommand,
  },
  inspect: {
    summary: "tell what to know of a foreign image before it is opened",
    stock: false,
    load: async () => (await import("./commands/inspect.js")).inspectCommand,
  },
  check: {
    summary: "look for damage, and repair it",
    stock: true,
    load: async () => (await import("./commands/check.js")).checkCommand,
  },
  map: {
    summary: "show where the data of an image lies",
    stock: true,
    load: async () => (await import("./commands/map.js")).mapCommand,
  },
  amend: {
    summary: "change the options of an image",
    stock: true,
    load: async () => (await import("./commands/amend.js")).amendCommand,
  },
  bitmap: {
    summary: "make, change and merge the dirty bitmaps of an image",
    stock: true,
    load: async () => (await import("./commands/bitmap.js")).bitmapCommand,
  },
  resize: {
    summary: "change the size of a disk",
    stock: true,
    load: async () => (await import("./commands/resize.js")).resizeCommand,
  },
  compact: {
    summary: "make the file of an image shorter, without copying the image",
    stock: false,
    load: async () => (await import("./commands/compact.js")).compactCommand,
  },
  snapshot: {
    summary: "list, take, apply and delete snapshots inside an image",
    stock: true,
    load: async () => (await import("./commands/snapshot.js")).snapshotCommand,
  },
  convert: {
    summary: "copy an image into another format",
    stock: true,
    load: async () => (await import("./commands/convert.js")).convertCommand,
  },
  zone: {
    summary: "report and manage the zones of a zoned image",
    stock: false,
    load: async () => (await import("./commands/zone.js")).zoneCommand,
  },
  nvme: {
    summary: "serve images over NVMe/TCP: a Linux kernel attaches them as disks",
    stock: false,
    load: async () => (await import("./commands/nvme.js")).nvmeCommand,
  },
  nbd: {
    summary: "serve images over NBD, as qemu-nbd does",
    stock: false,
    load: async () => (await import("./commands/nbd.js")).nbdCommand,
  },
  control: {
    summary: "ask and steer a running server",
    stock: false,
    load: async () => (await import("./commands/control.js")).controlCommand,
  },
  io: {
    summary: "read, write and test an image command by command, as qemu-io does",
    stock: false,
    load: async () => (await import("./commands/io.js")).ioCommand,
  },
};

function helpText(context: CommandContext): string {
  const names = Object.keys(COMMANDS).filter((name) => !context.standIn || COMMANDS[name]?.stock);
  const lines = names.map((name) => `  ${name.padEnd(8)}${COMMANDS[name]?.summary}`);
  return `usage: ${context.program} [-h | -V] COMMAND [OPTION]... [ARGUMENT]...

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
  if (entry === undefined || (context.standIn && !entry.stock)) throw new UsageError(`Command not found: ${first}`);
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
  const context: CommandContext = { program: standIn ? calledAs : "zcow", standIn, output };
  try {
    return await (tool ?? runCommandLine)(args, context);
  } catch (error) {
    return reportFailure(error, context);
  }
}
