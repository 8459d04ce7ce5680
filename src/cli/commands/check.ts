import { isZcowError } from "../../base/errors.js";
import { fixedPoint } from "../../base/size-text.js";
import { type CheckFinding, checkExitCode } from "../../formats/qcow2/check/check-result.js";
import { checkImage, type ImageCheck } from "../../jobs/check.js";
import { givenCacheMode } from "../cache-mode.js";
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
  PROGRESS_OPTION,
  QUIET_OPTION,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { explain, printError, withSubject } from "../failure.js";
import { jsonText } from "../json.js";
import type { CommandManual } from "../manual.js";
import { type NamedImage, namedImage, onlyName, refuseForcedChange, withSource } from "../named-image.js";
import { guessedRawText } from "../open.js";
import { isGiven, lastValue, type OptionSpec, type ParsedArguments, saying } from "../options.js";
import { ProgressLine } from "../progress.js";
import { UsageError } from "../usage-error.js";

const STOCK_OPTIONS: readonly OptionSpec[] = [
  FORMAT_OPTION,
  {
    name: "repair",
    short: "r",
    long: "repair",
    value: "WHAT",
    about: "leaks: free lost clusters; all: mend whatever can be mended",
    choices: ["leaks", "all"],
  },
  OUTPUT_OPTION,
  saying(QUIET_OPTION, "findings only"),
  {
    name: "cache",
    short: "T",
    value: "MODE",
    about: "cache mode: none, writeback, unsafe, directsync or writethrough",
  },
  FORCE_SHARE_OPTION,
  OBJECT_OPTION,
  IMAGE_OPTS_OPTION,
  HELP_OPTION,
];

export const CHECK_MANUAL: CommandManual = {
  name: "check",
  synopsis: ["[-f FORMAT] [-r leaks|all] [-p] [--output human|json] [-q] [-U] FILE"],
  about: ["Looks for damage in the metadata of an image. Data are not read."],
  options: [PROGRESS_OPTION, ...STOCK_OPTIONS],
  exitStatus: "0 sound, 1 the check could not be done, 2 damage, 3 lost clusters only, 63 nothing to check.",
};

/** The stock tool shows no progress in its `check`. */
const STOCK_CHECK_MANUAL: CommandManual = {
  ...CHECK_MANUAL,
  synopsis: ["[-f FORMAT] [-r leaks|all] [--output human|json] [-q] [-U] FILE"],
  options: STOCK_OPTIONS,
};

/** Exit status for formats that cannot be checked. */
const EXIT_NOT_CHECKABLE = 63;

export async function checkCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const manual = context.standIn ? STOCK_CHECK_MANUAL : CHECK_MANUAL;
  const parsed = commandArguments(args, manual, context);
  if (parsed === undefined) return 0;
  const repair = repairMode(parsed);
  onlyName(parsed);
  const form = outputForm(parsed, ["human", "json"]);
  givenCacheMode(lastValue(parsed, "cache"), "source cache option");
  const image = namedImage(parsed, await givenSecrets(parsed));
  const showsProgress = isGiven(parsed, "progress") && !isGiven(parsed, "quiet") && form === "human";
  const line = showsProgress ? new ProgressLine(context, true) : undefined;
  const result = await runCheck(image, repair, context, line).finally(() => line?.end());
  if (result === undefined) return EXIT_NOT_CHECKABLE;
  if (!isGiven(parsed, "quiet"))
    context.output.out(form === "json" ? checkJson(result, image.name) : checkText(result));
  return exitStatus(result, context);
}

function repairMode(parsed: ParsedArguments): "leaks" | "all" | undefined {
  const mode = lastValue(parsed, "repair");
  if (mode === undefined || mode === "leaks" || mode === "all") return mode;
  throw new UsageError(`Unknown option value for -r (expecting 'leaks' or 'all'): ${mode}`);
}

/** The result, or undefined when the format has nothing to check, which has been said. */
async function runCheck(
  image: NamedImage,
  repair: "leaks" | "all" | undefined,
  context: CommandContext,
  line: ProgressLine | undefined,
): Promise<ImageCheck | undefined> {
  return withSource(
    image,
    repair === undefined ? "read" : "write",
    context,
    async ({ source, format, replacesFiles }) => {
      if (repair !== undefined) refuseForcedChange(image);
      try {
        return await checkImage(source, {
          format,
          forceShare: image.forceShare,
          ...(replacesFiles ? {} : { implicitFiles: "probe" }),
          ...(repair === undefined ? {} : { repair }),
          onFinding: (finding) => tellFinding(finding, context),
          onWarning: (warning) => printError(context, `warning: ${warning.message}`),
          ...(line === undefined ? {} : { onProgress: (done: number) => line.report(done, 1) }),
        });
      } catch (error) {
        if (!isZcowError(error, "CHECK_UNSUPPORTED")) throw withSubject(`Could not open '${image.name}'`, error);
        const isGuess = repair !== undefined && format === "probe" && error.data.value === "raw";
        if (isGuess) context.output.err(guessedRawText(image.name));
        printError(context, explain(error, context));
        return undefined;
      }
    },
  );
}

/** The stock tool puts its name in front of what makes a snapshot table unreadable, and of no other finding. */
function tellFinding(finding: CheckFinding, context: CommandContext): void {
  if (finding.kind === "snapshot-table" && finding.severity === "error") printError(context, finding.message);
  else context.output.err(`${finding.message}\n`);
}

function exitStatus(result: ImageCheck, context: CommandContext): number {
  if (result.failure !== undefined) printError(context, `Check failed: ${result.failure}`);
  else if (result.checkErrors > 0) printError(context, "Check failed");
  return checkExitCode(result);
}

function checkText(result: ImageCheck): string {
  const repaired = result.corruptionsFixed > 0 || result.leaksFixed > 0 ? repairText(result) : "";
  if (result.failure !== undefined) return repaired;
  return repaired + findingsText(result) + statisticsText(result);
}

function repairText(result: ImageCheck): string {
  return (
    "The following inconsistencies were found and repaired:\n\n" +
    `    ${result.leaksFixed} leaked clusters\n    ${result.corruptionsFixed} corruptions\n\n` +
    "Double checking the fixed image now...\n"
  );
}

function findingsText({ corruptions, leaks, checkErrors }: ImageCheck): string {
  if (corruptions + leaks + checkErrors === 0) return "No errors were found on the image.\n";
  let text = "";
  if (corruptions > 0) {
    text += `\n${corruptions} errors were found on the image.\n`;
    text += "Data may be corrupted, or further writes to the image may corrupt it.\n";
  }
  if (leaks > 0) {
    text += `\n${leaks} leaked clusters were found on the image.\n`;
    text += "This means waste of disk space, but no harm to data.\n";
  }
  if (checkErrors > 0) text += `\n${checkErrors} internal errors have occurred during the check.\n`;
  return text;
}

function statisticsText(result: ImageCheck): string {
  const { totalClusters, allocatedClusters, fragmentedClusters, compressedClusters, imageEndOffset } = result;
  let text = "";
  if (totalClusters > 0 && allocatedClusters > 0) {
    text += `${allocatedClusters}/${totalClusters} = ${percent(allocatedClusters, totalClusters)} allocated, `;
    text += `${percent(fragmentedClusters, allocatedClusters)} fragmented, `;
    text += `${percent(compressedClusters, allocatedClusters)} compressed clusters\n`;
  }
  if (imageEndOffset > 0) text += `Image end offset: ${imageEndOffset}\n`;
  return text;
}

function percent(part: number, whole: number): string {
  return `${fixedPoint((part * 100) / whole, 2)}%`;
}

/** Keys in the order of the stock tool; counts of nothing are left out, as there. */
function checkJson(result: ImageCheck, path: string): string {
  if (result.failure !== undefined) return "";
  const unlessZero = (key: string, value: number): Record<string, number> => (value === 0 ? {} : { [key]: value });
  return jsonText({
    ...unlessZero("image-end-offset", result.imageEndOffset),
    ...unlessZero("compressed-clusters", result.compressedClusters),
    ...unlessZero("total-clusters", result.totalClusters),
    ...unlessZero("corruptions-fixed", result.corruptionsFixed),
    ...unlessZero("corruptions", result.corruptions),
    "check-errors": result.checkErrors,
    ...unlessZero("leaks", result.leaks),
    ...unlessZero("leaks-fixed", result.leaksFixed),
    ...unlessZero("allocated-clusters", result.allocatedClusters),
    filename: path,
    format: result.format,
    ...unlessZero("fragmented-clusters", result.fragmentedClusters),
  });
}
