import { isZcowError, ZcowError } from "../../base/errors.js";
import { parseSize } from "../../base/size-text.js";
import { PREALLOCATIONS, type Preallocation } from "../../formats/qcow2/create-layout.js";
import { type ResizeImageOptions, resizeImage } from "../../jobs/resize.js";
import type { Storage } from "../../storage/storage.js";
import {
  FORMAT_OPTION,
  givenSecrets,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  OBJECT_OPTION,
  QUIET_OPTION,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { EXIT_FAILURE, explain, printError } from "../failure.js";
import { helpText } from "../help-text.js";
import { describeToChange } from "../image-to-change.js";
import { type CommandManual, optionsOf } from "../manual.js";
import { namedImage, withSource } from "../named-image.js";
import { isGiven, lastValue, parseArguments } from "../options.js";
import { UsageError } from "../usage-error.js";

export const RESIZE_MANUAL: CommandManual = {
  name: "resize",
  synopsis: ["[-f FORMAT] [--shrink] [--preallocation=MODE] [-q] [--image-opts] FILE [+|-]SIZE"],
  about: ["Changes the size of a disk; the size stands last. What is new reads as zeros."],
  options: [
    FORMAT_OPTION,
    { name: "shrink", long: "shrink", about: "allow a smaller size: everything beyond it is lost" },
    {
      name: "preallocation",
      long: "preallocation",
      value: "MODE",
      about: "off (default), metadata, falloc or full, for the new part of a larger disk",
      choices: PREALLOCATIONS,
    },
    QUIET_OPTION,
    OBJECT_OPTION,
    IMAGE_OPTS_OPTION,
    HELP_OPTION,
  ],
  notes: [
    "SIZE is a number of bytes, with an optional suffix k, M, G, T, P or E; with + or - it is added to or taken from the present size.",
  ],
};

const SHRINK_WARNING =
  "warning: Shrinking an image will delete all data beyond the shrunken image's end. " +
  "Before performing such an operation, make sure there is no important data there.";
/** Sizes of the stock tools are signed 64-bit numbers. */
const SIZE_LIMIT = 2 ** 63;

export async function resizeCommand(args: readonly string[], context: CommandContext): Promise<number> {
  if (args.length === 1 && (args[0] === "-h" || args[0] === "--help")) {
    context.output.out(helpText(RESIZE_MANUAL, context));
    return 0;
  }
  // The size may begin with a dash, so it is taken away before options are looked for.
  const sizeText = args.at(-1);
  if (args.length < 2 || sizeText === undefined) throw new UsageError("Not enough arguments");
  const parsed = parseArguments(args.slice(0, -1), optionsOf(RESIZE_MANUAL));
  const preallocation = preallocationMode(lastValue(parsed, "preallocation") ?? "off");
  if (parsed.positionals.length !== 1) throw new UsageError("Expecting image file name and size");
  const [sign, change] = parseChange(sizeText);
  const image = namedImage(parsed, await givenSecrets(parsed));
  const shrink = isGiven(parsed, "shrink");
  const status = await withSource(image, "write", context, async (found) => {
    const { virtualSize } = await describeToChange(found, image, context);
    const { source, format, passphrase } = found;
    const size = sign === 0 ? change : virtualSize + sign * change;
    if (size <= 0 || size >= SIZE_LIMIT) throw new UsageError("New image size must be positive", false);
    return resize(source, { format, size, shrink, preallocation, implicitFiles: "allow", passphrase }, context);
  });
  if (status === 0 && !isGiven(parsed, "quiet")) context.output.out("Image resized.\n");
  return status;
}

async function resize(source: string | Storage, options: ResizeImageOptions, context: CommandContext): Promise<number> {
  try {
    await resizeImage(source, options);
    return 0;
  } catch (error) {
    if (!isZcowError(error, "SHRINK_NOT_ALLOWED")) throw error;
    printError(context, explain(error, context));
    printError(context, SHRINK_WARNING);
    return EXIT_FAILURE;
  }
}

function preallocationMode(text: string): Preallocation {
  const mode = PREALLOCATIONS.find((known) => known === text);
  if (mode !== undefined) return mode;
  throw new UsageError(`Invalid preallocation mode '${text}'`, false);
}

function parseChange(text: string): readonly [sign: -1 | 0 | 1, bytes: number] {
  const sign = text.startsWith("+") ? 1 : text.startsWith("-") ? -1 : 0;
  const bytes = parseSize(sign === 0 ? text : text.slice(1));
  if (bytes !== undefined) return [sign, bytes];
  throw new ZcowError("INVALID_ARGUMENT", `size '${text}' is not a number of bytes`, {
    data: { option: "size", value: text },
    stockText:
      "Parameter 'size' expects a non-negative number below 2^64\n" +
      "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.",
  });
}
