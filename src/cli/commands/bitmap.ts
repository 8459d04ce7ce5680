import { ZcowError } from "../../base/errors.js";
import { parseSize } from "../../base/size-text.js";
import { type BitmapAction, changeBitmap, readBitmap } from "../../jobs/bitmap.js";
import {
  FORMAT_OPTION,
  givenSecrets,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  namedImage,
  OBJECT_OPTION,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { withSubject } from "../failure.js";
import { helpText } from "../help-text.js";
import { type CommandManual, optionsOf } from "../manual.js";
import { formatChoice } from "../open.js";
import { isGiven, lastValue, type OptionSpec, type ParsedArguments, parseArguments, saying } from "../options.js";
import { UsageError } from "../usage-error.js";

const ACTIONS: readonly OptionSpec[] = [
  { name: "add", long: "add", about: "make it; it records writes from now on" },
  { name: "remove", long: "remove", about: "take it away; all that can be done with an inconsistent one" },
  { name: "clear", long: "clear", about: "nothing is dirty any more" },
  { name: "enable", long: "enable", about: "record writes from now on" },
  { name: "disable", long: "disable", about: "record no more writes" },
  { name: "merge", long: "merge", value: "SOURCE", about: "what is dirty in bitmap SOURCE is dirty in this one, too" },
];

export const BITMAP_MANUAL: CommandManual = {
  name: "bitmap",
  synopsis: [
    "(--add | --remove | --clear | --enable | --disable | --merge SOURCE)... [-g SIZE] [-b FILE [-F FORMAT]] [-f FORMAT] FILE BITMAP",
  ],
  about: ["Changes a dirty bitmap that is stored in an image. Actions are done in the order given."],
  options: [
    ...ACTIONS,
    {
      name: "granularity",
      short: "g",
      long: "granularity",
      value: "SIZE",
      about: "with --add: bytes that one bit stands for, 512 to 2G; default: the cluster size",
    },
    {
      name: "source-file",
      short: "b",
      long: "source-file",
      value: "FILE",
      about: "with --merge: the image that SOURCE is in",
    },
    { name: "source-format", short: "F", long: "source-format", value: "FORMAT", about: "its format" },
    saying(FORMAT_OPTION, "qcow2; recognised by content when left out"),
    OBJECT_OPTION,
    IMAGE_OPTS_OPTION,
    HELP_OPTION,
  ],
};

export async function bitmapCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = parseArguments(args, optionsOf(BITMAP_MANUAL));
  if (isGiven(parsed, "help")) {
    context.output.out(helpText(BITMAP_MANUAL, context));
    return 0;
  }
  const granularity = granularityOf(parsed);
  const [file, name, ...more] = parsed.positionals;
  if (file === undefined || name === undefined || more.length > 0) {
    throw new UsageError("Expecting filename and bitmap name", false);
  }
  const given = parsed.options.filter((option) => ACTIONS.some((action) => action.name === option.name));
  checkCombination(parsed, given.length);
  const image = namedImage({ ...parsed, positionals: [file] }, await givenSecrets(parsed));
  const sourceFile = lastValue(parsed, "source-file");
  const sourceFormat = lastValue(parsed, "source-format");
  const actions: BitmapAction[] = [];
  for (const option of given) actions.push(await actionOf(option, granularity, sourceFile, sourceFormat, name));
  try {
    const { path, format, passphrase } = image;
    await changeBitmap(path, { format: formatChoice(format), name, actions, passphrase });
    return 0;
  } catch (error) {
    const inOperation = error instanceof ZcowError && error.message.startsWith("Operation ");
    const isFormat = error instanceof ZcowError && error.code === "NOT_SUPPORTED";
    if (inOperation) throw error;
    throw withSubject(
      isFormat ? `Operation ${given[0]?.name} on bitmap ${name} failed` : `Could not open '${image.path}'`,
      error,
    );
  }
}

function granularityOf(parsed: ParsedArguments): number | undefined {
  const text = lastValue(parsed, "granularity");
  if (text === undefined) return undefined;
  const size = parseSize(text);
  if (size !== undefined) return size;
  throw new UsageError(
    "Invalid granularity specified. You may use k, M, G, T, P or E suffixes for\n" +
      "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.",
    false,
  );
}

function checkCombination(parsed: ParsedArguments, actions: number): void {
  if (actions === 0) {
    throw new UsageError("Need at least one of --add, --remove, --clear, --enable, --disable, or --merge", false);
  }
  if (isGiven(parsed, "granularity") && !isGiven(parsed, "add")) {
    throw new UsageError("granularity only supported with --add", false);
  }
  if (isGiven(parsed, "source-format") && !isGiven(parsed, "source-file")) {
    throw new UsageError("-F only supported with -b", false);
  }
  if (isGiven(parsed, "source-file") && !isGiven(parsed, "merge")) {
    throw new UsageError("Merge bitmap source file only supported with --merge", false);
  }
}

async function actionOf(
  option: { readonly name: string; readonly value: string },
  granularity: number | undefined,
  sourceFile: string | undefined,
  sourceFormat: string | undefined,
  target: string,
): Promise<BitmapAction> {
  if (option.name === "add") return { do: "add", granularity };
  if (option.name !== "merge") return { do: option.name as "remove" | "clear" | "enable" | "disable" };
  if (sourceFile === undefined) return { do: "merge", from: option.value };
  try {
    const source = await readBitmap(sourceFile, { format: formatChoice(sourceFormat), name: option.value });
    return { do: "merge", from: option.value, source };
  } catch (error) {
    const found = error instanceof ZcowError && error.code.startsWith("BITMAP");
    throw withSubject(found ? `Operation merge on bitmap ${target} failed` : `Could not open '${sourceFile}'`, error);
  }
}
