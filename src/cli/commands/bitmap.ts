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
import { formatChoice } from "../open.js";
import { isGiven, lastValue, type OptionSpec, type ParsedArguments, parseArguments } from "../options.js";
import { UsageError } from "../usage-error.js";

const ACTIONS: readonly OptionSpec[] = [
  { name: "add", long: "add" },
  { name: "remove", long: "remove" },
  { name: "clear", long: "clear" },
  { name: "enable", long: "enable" },
  { name: "disable", long: "disable" },
  { name: "merge", long: "merge", value: true },
];
const OPTIONS: readonly OptionSpec[] = [
  ...ACTIONS,
  { name: "granularity", short: "g", long: "granularity", value: true },
  { name: "source-file", short: "b", long: "source-file", value: true },
  { name: "source-format", short: "F", long: "source-format", value: true },
  FORMAT_OPTION,
  IMAGE_OPTS_OPTION,
  OBJECT_OPTION,
  HELP_OPTION,
];

const HELP = `usage: zcow bitmap (--add | --remove | --clear | --enable | --disable | --merge SOURCE)...
                   [-g SIZE] [-b FILE [-F FORMAT]] [-f FORMAT] FILE BITMAP

Changes a dirty bitmap that is stored in an image. Actions are done in the order given.

      --add             make it; it records writes from now on
      --remove          take it away; all that can be done with an inconsistent one
      --clear           nothing is dirty any more
      --enable          record writes from now on
      --disable         record no more writes
      --merge SOURCE    what is dirty in bitmap SOURCE is dirty in this one, too
  -g, --granularity SIZE      with --add: bytes that one bit stands for, 512 to 2G; default: the cluster size
  -b, --source-file FILE      with --merge: the image that SOURCE is in
  -F, --source-format FORMAT  its format
  -f, --format FORMAT   qcow2; recognised by content when left out
      --object SECRET   secret,id=ID,data=TEXT or file=PATH: a passphrase for encrypt.key-secret=ID
      --image-opts      FILE is a list of options: driver=qcow2,file.filename=PATH
`;

export async function bitmapCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = parseArguments(args, OPTIONS);
  if (isGiven(parsed, "help")) {
    context.output.out(HELP);
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
