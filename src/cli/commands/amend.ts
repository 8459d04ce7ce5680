import { ZcowError } from "../../base/errors.js";
import { OPTION_SPECS } from "../../formats/qcow2/create-options.js";
import { amendImage } from "../../jobs/amend.js";
import { describeImage } from "../../jobs/info.js";
import {
  FORMAT_OPTION,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  type NamedImage,
  namedImage,
  QUIET_OPTION,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { optionHelp } from "../create-options-text.js";
import { withSubject } from "../failure.js";
import { splitOptionList } from "../image-options.js";
import { formatChoice } from "../open.js";
import { allValues, isGiven, type OptionSpec, parseArguments } from "../options.js";
import { UsageError } from "../usage-error.js";

const AMEND_OPTION: OptionSpec = { name: "options", short: "o", value: true };
const PROGRESS_OPTION: OptionSpec = { name: "progress", short: "p" };
const CACHE_OPTION: OptionSpec = { name: "cache", short: "t", value: true };
const FORCE_OPTION: OptionSpec = { name: "force", long: "force" };
const OPTIONS = [
  FORMAT_OPTION,
  AMEND_OPTION,
  PROGRESS_OPTION,
  CACHE_OPTION,
  FORCE_OPTION,
  QUIET_OPTION,
  IMAGE_OPTS_OPTION,
  HELP_OPTION,
];

const HELP = `usage: zcow amend [-f FORMAT] -o zone.layout=current [-p] [-q] FILE

Changes options of an image in place.

  -o NAME=VALUE         zone.layout=current: bring the zoned extension into the current layout
  -f, --format FORMAT   qcow2; recognised by content when left out
  -p                    show progress
`;

/** The one option that can be changed so far. */
const LAYOUT = "zone.layout";
/** What the stock tool can change besides; refused by name. */
const STOCK_AMENDABLE = [
  "backing_file",
  "backing_fmt",
  "compat",
  "data_file",
  "data_file_raw",
  "lazy_refcounts",
  "refcount_bits",
  "size",
];

export async function amendCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = parseArguments(args, OPTIONS);
  if (isGiven(parsed, "help")) {
    context.output.out(HELP);
    return 0;
  }
  const lists = allValues(parsed, "options");
  if (lists.length === 0) throw new UsageError("Must specify options (-o)");
  if (lists.some((list) => list.split(",").some((item) => item === "help" || item === "?"))) {
    context.output.out(`Amend options for 'qcow2':\n${optionHelp("qcow2", [LAYOUT])}`);
    return 0;
  }
  const given = lists.flatMap((list) => splitOptionList(list));
  const image = namedImage(parsed);
  await requireAmendable(image);
  for (const [name, value] of given) checkOption(name, value);
  const showProgress = isGiven(parsed, "progress") && !isGiven(parsed, "quiet");
  if (showProgress) context.output.out("    (0.00/100%)\r");
  await amend(image);
  if (showProgress) context.output.out("    (100.00/100%)\n");
  return 0;
}

/** The format is told about before the options, as in the stock tool. */
async function requireAmendable({ path, format, forceShare }: NamedImage): Promise<void> {
  const info = await describeImage(path, { format: formatChoice(format), forceShare }).catch((error) => {
    throw withSubject(`Could not open '${path}'`, error);
  });
  if (info.qcow2 !== undefined) return;
  throw new ZcowError("AMEND_UNSUPPORTED", `${path} is ${info.format}, which has no options to change`, {
    data: { path, value: info.format },
    stockText: `Format driver '${info.format}' does not support option amendment`,
  });
}

async function amend(image: NamedImage): Promise<void> {
  try {
    await amendImage(image.path, { format: formatChoice(image.format), zoneLayout: "current" });
  } catch (error) {
    throw error instanceof ZcowError && error.category === "unsupported"
      ? error
      : withSubject(`Could not open '${image.path}'`, error);
  }
}

function checkOption(name: string, value: string): void {
  const data = { option: name, value };
  if (name === LAYOUT) {
    if (value === "current") return;
    throw new ZcowError("INVALID_ARGUMENT", `an image can be converted to ${LAYOUT}=current only, not to '${value}'`, {
      data,
    });
  }
  if (STOCK_AMENDABLE.includes(name) || name.startsWith("encrypt.")) {
    throw new ZcowError("NOT_SUPPORTED", `option '${name}' of an existing image cannot be changed by this version`, {
      data,
    });
  }
  const creatable = OPTION_SPECS.some(
    (spec) => spec.name === name || spec.aliases?.some((alias) => alias.name === name),
  );
  throw new ZcowError(
    "UNKNOWN_OPTION",
    creatable ? `option '${name}' is fixed when an image is created` : `qcow2 has no option '${name}'`,
    {
      data,
      stockText: `Invalid parameter '${name}'${creatable ? "\nThis option is only supported for image creation" : ""}`,
    },
  );
}
