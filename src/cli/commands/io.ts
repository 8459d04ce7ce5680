import {
  FORCE_SHARE_OPTION,
  FORMAT_OPTION,
  givenSecrets,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  OBJECT_OPTION,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { EXIT_FAILURE, printError } from "../failure.js";
import { helpText } from "../help-text.js";
import { ioCommands } from "../io/all-commands.js";
import { type OpenRequest, openChoice } from "../io/choices.js";
import { inputLines } from "../io/input.js";
import { IoSession } from "../io/session.js";
import { type CommandManual, optionsOf } from "../manual.js";
import { allValues, isGiven, lastValue, OptionError, type ParsedArguments, parseArguments } from "../options.js";
import { UsageError } from "../usage-error.js";
import { versionText } from "../version.js";

export const IO_MANUAL: CommandManual = {
  name: "io",
  synopsis: ["[OPTION]... [-c COMMAND]... [FILE]"],
  about: ["Reads, writes and tests an image command by command. Without -c the commands come from standard input."],
  options: [
    { name: "command", short: "c", long: "cmd", value: "COMMAND", about: "run this command; may be repeated" },
    FORMAT_OPTION,
    { name: "read-only", short: "r", long: "read-only", about: "open for reading only" },
    { name: "nocache", short: "n", long: "nocache", about: "bypass the page cache, short for -t none" },
    {
      name: "cache",
      short: "t",
      long: "cache",
      value: "MODE",
      about: "none, writeback, unsafe, directsync or writethrough (default)",
    },
    {
      name: "discard",
      short: "d",
      long: "discard",
      value: "MODE",
      about: "what discards do: unmap (default) or ignore",
      choices: ["unmap", "ignore"],
    },
    { name: "snapshot", short: "s", long: "snapshot", about: "write into a temporary image that is thrown away" },
    { name: "copy-on-read", short: "C", long: "copy-on-read", about: "keep what is read from the backing image" },
    FORCE_SHARE_OPTION,
    OBJECT_OPTION,
    IMAGE_OPTS_OPTION,
    // Taken for the sake of scripts, without effect: how requests reach the disk is decided here.
    { name: "misalign", short: "m", long: "misalign" },
    { name: "native-aio", short: "k", long: "native-aio" },
    { name: "aio", short: "i", long: "aio", value: "MODE" },
    { name: "trace", short: "T", long: "trace", value: "PATTERN" },
    HELP_OPTION,
    { name: "version", short: "V", long: "version" },
  ],
  notes: ["'zcow io -c help' lists the commands."],
};

export async function ioCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = parseOrExplain(args, context);
  if (parsed === undefined) return EXIT_FAILURE;
  if (isGiven(parsed, "help")) printHelp(context);
  else if (isGiven(parsed, "version")) context.output.out(versionText(context));
  else return runExerciser(parsed, context);
  return 0;
}

function printHelp(context: CommandContext): void {
  context.output.out(helpText(IO_MANUAL, context, context.standIn ? context.program : undefined));
}

/** The stock tool answers a command line that it does not understand with its whole help. */
function parseOrExplain(args: readonly string[], context: CommandContext): ParsedArguments | undefined {
  try {
    const parsed = parseArguments(args, optionsOf(IO_MANUAL));
    if (parsed.positionals.length > 1) throw new UsageError("Expecting at most one image file name");
    return parsed;
  } catch (error) {
    if (!context.standIn || !(error instanceof UsageError)) throw error;
    if (error instanceof OptionError) printError(context, error.getoptText);
    printHelp(context);
    return undefined;
  }
}

async function runExerciser(parsed: ParsedArguments, context: CommandContext): Promise<number> {
  const secretOf = await givenSecrets(parsed);
  const request = openRequest(parsed);
  const choice = openChoice(request);
  const session = new IoSession(context, ioCommands(), secretOf);
  if (parsed.positionals.length > 0) await session.open(choice, request.aio);
  const commands = allValues(parsed, "command");
  const lines = commands.length > 0 ? commands : inputLines((prompt) => context.output.out(prompt));
  const ok = await session.executeAll(lines);
  await session.close();
  return ok ? 0 : EXIT_FAILURE;
}

function openRequest(parsed: ParsedArguments): OpenRequest {
  const [name] = parsed.positionals;
  const format = lastValue(parsed, "format");
  const isDescribed = isGiven(parsed, "image-opts");
  if (isDescribed && format !== undefined) throw new UsageError("--image-opts and -f are mutually exclusive", false);
  return {
    path: isDescribed ? undefined : name,
    format,
    lists: isDescribed && name !== undefined ? [name] : [],
    readOnly: isGiven(parsed, "read-only"),
    forceShare: isGiven(parsed, "force-share"),
    temporary: isGiven(parsed, "snapshot"),
    copyOnRead: isGiven(parsed, "copy-on-read"),
    cache: isGiven(parsed, "nocache") ? "none" : lastValue(parsed, "cache"),
    discard: lastValue(parsed, "discard"),
    aio: isGiven(parsed, "native-aio") ? "native" : lastValue(parsed, "aio"),
  };
}
