import type { BlockDevice } from "../../block/block-device.js";
import type { SecretLookup } from "../../formats/qcow2/create-options-parse.js";
import { type Comparison, compareDisks } from "../../jobs/compare/compare.js";
import type { ZoneDifference } from "../../jobs/compare/compare-zones.js";
import { type CacheMode, givenCacheMode } from "../cache-mode.js";
import { commandArguments } from "../command-arguments.js";
import {
  FORCE_SHARE_OPTION,
  FORMAT_OPTION,
  givenSecrets,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  OBJECT_OPTION,
  PROGRESS_OPTION,
  QUIET_OPTION,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { errnoText, explain, printError, reportFailure, withSubject } from "../failure.js";
import type { CommandManual } from "../manual.js";
import { imageNamed, type NamedImage } from "../named-image.js";
import { openForCommand } from "../open.js";
import { flagOption, isGiven, lastValue, type ParsedArguments, saying } from "../options.js";
import { ProgressLine } from "../progress.js";
import { UsageError } from "../usage-error.js";

export const COMPARE_MANUAL: CommandManual = {
  name: "compare",
  synopsis: ["[-f FORMAT] [-F FORMAT] [-s] [-p] [-q] [-U] FIRST SECOND"],
  about: [
    "Tells whether two images hold the same for their guest. What lies past the end of the smaller one must be zeros. Of two zoned images the zones are compared, too.",
  ],
  options: [
    saying(FORMAT_OPTION, "of the first image; recognised by content when left out"),
    { name: "second-format", short: "F", value: "FORMAT", about: "of the second image" },
    flagOption("strict", "s", "sizes, and what is stored, zero or unallocated, must be the same as well"),
    { name: "source-cache", short: "T", value: "MODE", about: "cache mode" },
    saying(IMAGE_OPTS_OPTION, "FIRST and SECOND are lists of options: driver=qcow2,file.filename=PATH"),
    OBJECT_OPTION,
    PROGRESS_OPTION,
    QUIET_OPTION,
    FORCE_SHARE_OPTION,
    HELP_OPTION,
  ],
  exitStatus:
    "0 the same, 1 different, 2 an image could not be opened, 3 an image could not be mapped, 4 reading failed.",
};

const EXIT_DIFFERENT = 1;
const EXIT_NOT_OPENED = 2;
const EXIT_NOT_MAPPED = 3;
const EXIT_UNREADABLE = 4;
const PROGRESS_STEP_PERCENT = 2;

export async function compareCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, COMPARE_MANUAL, context);
  if (parsed === undefined) return 0;
  const [first, second, ...more] = parsed.positionals;
  if (first === undefined || second === undefined || more.length > 0) {
    throw new UsageError("Expecting two image file names");
  }
  const shown = isGiven(parsed, "progress") && !isGiven(parsed, "quiet");
  const line = new ProgressLine(context, shown, PROGRESS_STEP_PERCENT);
  const opened: BlockDevice[] = [];
  try {
    const choice = choiceOf(parsed, await givenSecrets(parsed));
    opened.push(await openOne(choice(first, lastValue(parsed, "format")), context));
    opened.push(await openOne(choice(second, lastValue(parsed, "second-format")), context));
  } catch (error) {
    await closeAll(opened);
    line.end();
    reportFailure(error, context);
    return EXIT_NOT_OPENED;
  }
  try {
    return await compare(opened as [BlockDevice, BlockDevice], [first, second], parsed, line, context);
  } finally {
    await closeAll(opened);
  }
}

interface Choice extends NamedImage {
  readonly cache: CacheMode;
  /** As the user names the image. */
  readonly argument: string;
}

/** Says what an argument and its format stand for. */
function choiceOf(
  parsed: ParsedArguments,
  secretOf: SecretLookup,
): (argument: string, format: string | undefined) => Choice {
  const cache = givenCacheMode(lastValue(parsed, "source-cache"), "source cache option");
  return (argument, format) => ({ ...imageNamed(argument, parsed, secretOf, format), cache, argument });
}

async function openOne(choice: Choice, context: CommandContext): Promise<BlockDevice> {
  try {
    return await openForCommand({ ...choice, readOnly: true }, context);
  } catch (error) {
    throw withSubject(`Could not open '${choice.argument}'`, error);
  }
}

async function closeAll(devices: readonly BlockDevice[]): Promise<void> {
  await Promise.all(devices.map((device) => device.close()));
}

async function compare(
  [first, second]: readonly [BlockDevice, BlockDevice],
  names: readonly [string, string],
  parsed: ParsedArguments,
  line: ProgressLine,
  context: CommandContext,
): Promise<number> {
  const quiet = isGiven(parsed, "quiet");
  const say = (text: string): void => {
    if (!quiet) context.output.out(`${text}\n`);
  };
  line.start();
  const work = compareDisks(first, second, {
    strict: isGiven(parsed, "strict"),
    namesArePaths: true,
    onProgress: (done, total) => line.report(done, total),
    onSizesDiffer: () => say("Warning: Image size mismatch!"),
  });
  const found = await line.during(work);
  const status = tell(found, names, say, context);
  line.end();
  return status;
}

function tell(
  found: Comparison,
  names: readonly [string, string],
  say: (text: string) => void,
  context: CommandContext,
): number {
  const nameOf = (side: "first" | "second"): string => names[side === "first" ? 0 : 1];
  switch (found.verdict) {
    case "same":
      if (found.zones === "one-sided") say("Only one image is zoned: zones are not compared.");
      say("Images are identical.");
      return 0;
    case "content":
      say(`Content mismatch at offset ${found.offset}!`);
      return EXIT_DIFFERENT;
    case "status":
      say(`Strict mode: Offset ${found.offset} block status mismatch!`);
      return EXIT_DIFFERENT;
    case "size":
      say("Strict mode: Image size mismatch!");
      return EXIT_DIFFERENT;
    case "zoned":
      say("Strict mode: Only one image is zoned!");
      return EXIT_DIFFERENT;
    case "zones":
      say(zoneText(found.difference));
      return EXIT_DIFFERENT;
    case "unmapped":
      printError(context, withReason(`Sector allocation test failed for ${nameOf(found.side)}`, found.error, context));
      return EXIT_NOT_MAPPED;
    case "unreadable": {
      const subject = `Error while reading offset ${found.offset} of ${nameOf(found.side)}: ${errnoText(found.error)}`;
      printError(context, withReason(subject, found.error, context));
      return EXIT_UNREADABLE;
    }
  }
}

/** The stock tool leaves out why. */
function withReason(text: string, error: unknown, context: CommandContext): string {
  return context.standIn ? text : `${text}: ${explain(error, context)}`;
}

const ZONE_WORDS: Readonly<Record<string, string>> = {
  zoneSize: "zone size",
  zoneCapacity: "zone capacity",
  conventionalZones: "number of conventional zones",
  zoneCount: "number of zones",
  writePointer: "write pointer",
};

function zoneText({ zone, what, first, second }: ZoneDifference): string {
  const subject = zone === undefined ? "Zones mismatch" : `Zone ${zone} mismatch`;
  return `${subject}: ${ZONE_WORDS[what] ?? what} ${first} and ${second}!`;
}
