import type { SecretLookup } from "../../formats/qcow2/create-options-parse.js";
import { type CacheMode, cacheMode, WRITE_BACK } from "../cache-mode.js";
import {
  describedPassphrase,
  FORCE_SHARE_OPTION,
  FORMAT_OPTION,
  givenSecrets,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  OBJECT_OPTION,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { EXIT_FAILURE } from "../failure.js";
import { helpText } from "../help-text.js";
import { parseImageDescription } from "../image-options.js";
import { ioCommands } from "../io/all-commands.js";
import { inputLines } from "../io/input.js";
import { IoSession } from "../io/session.js";
import { type CommandManual, optionsOf } from "../manual.js";
import type { ImageChoice } from "../open.js";
import { allValues, isGiven, lastValue, type ParsedArguments, parseArguments } from "../options.js";
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
      about: "none, writeback (default), unsafe, directsync or writethrough",
    },
    FORCE_SHARE_OPTION,
    OBJECT_OPTION,
    IMAGE_OPTS_OPTION,
    // Taken for the sake of scripts, without effect: how requests reach the disk is decided here.
    { name: "ignored", short: "m", long: "misalign" },
    { name: "ignored", short: "k", long: "native-aio" },
    { name: "ignored", short: "i", long: "aio", value: "MODE" },
    { name: "ignored", short: "d", long: "discard", value: "MODE" },
    HELP_OPTION,
    { name: "version", short: "V", long: "version" },
  ],
  notes: ["'zcow io -c help' lists the commands."],
};

export async function ioCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = parseArguments(args, optionsOf(IO_MANUAL));
  if (isGiven(parsed, "help"))
    context.output.out(helpText(IO_MANUAL, context, context.standIn ? context.program : undefined));
  else if (isGiven(parsed, "version")) context.output.out(versionText(context));
  else return runExerciser(parsed, context);
  return 0;
}

async function runExerciser(parsed: ParsedArguments, context: CommandContext): Promise<number> {
  const secretOf = await givenSecrets(parsed);
  const choice = imageChoice(parsed, secretOf);
  const session = new IoSession(context, ioCommands(), secretOf);
  if (choice !== undefined) await session.open(choice);
  const commands = allValues(parsed, "command");
  const lines = commands.length > 0 ? commands : inputLines((prompt) => context.output.out(prompt));
  const ok = await session.executeAll(lines);
  await session.close();
  return ok ? 0 : EXIT_FAILURE;
}

function imageChoice(parsed: ParsedArguments, secretOf: SecretLookup): ImageChoice | undefined {
  const [name, ...more] = parsed.positionals;
  if (more.length > 0) throw new UsageError("Expecting at most one image file name");
  const cache = chosenCache(parsed);
  if (name === undefined) return undefined;
  const readOnly = isGiven(parsed, "read-only");
  const forceShare = isGiven(parsed, "force-share");
  const format = lastValue(parsed, "format");
  if (!isGiven(parsed, "image-opts")) return { path: name, format, readOnly, forceShare, cache };
  if (format !== undefined) throw new UsageError("--image-opts and -f are mutually exclusive", false);
  const described = parseImageDescription(name);
  if (described.path === undefined) throw new UsageError(`image options '${name}' name no file`, false);
  return {
    path: described.path,
    format: described.format,
    readOnly: readOnly || described.readOnly,
    forceShare: forceShare || described.forceShare,
    cache,
    passphrase: describedPassphrase(described, secretOf),
  };
}

function chosenCache(parsed: ParsedArguments): CacheMode {
  if (isGiven(parsed, "nocache")) return cacheMode("none") ?? WRITE_BACK;
  const name = lastValue(parsed, "cache");
  if (name === undefined) return WRITE_BACK;
  const cache = cacheMode(name);
  if (cache === undefined) throw new UsageError(`Invalid cache option: ${name}`, false);
  return cache;
}
