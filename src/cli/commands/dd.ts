import { ZcowError } from "../../base/errors.js";
import type { BlockDevice } from "../../block/block-device.js";
import { createImage, requireCreatable } from "../../formats/create-image.js";
import { openImage } from "../../formats/open-image.js";
import type { FormatName } from "../../formats/registry.js";
import { copyRange } from "../../jobs/dd/copy-range.js";
import { WRITE_BACK } from "../cache-mode.js";
import { commandArguments } from "../command-arguments.js";
import {
  FORCE_SHARE_OPTION,
  FORMAT_OPTION,
  givenSecrets,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  OBJECT_OPTION,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { errnoText, printError, withSubject } from "../failure.js";
import { fileOfName } from "../file-name.js";
import type { CommandManual } from "../manual.js";
import { imageNamed, type NamedImage } from "../named-image.js";
import { openForCommand } from "../open.js";
import { lastValue, saying } from "../options.js";
import { sizeValue } from "../size-option.js";
import { UsageError } from "../usage-error.js";

export const DD_MANUAL: CommandManual = {
  name: "dd",
  synopsis: ["[-f FORMAT] [-O FORMAT] [-U] [bs=SIZE] [count=BLOCKS] [skip=BLOCKS] if=INPUT of=OUTPUT"],
  about: ["Copies a part of an image into a new image."],
  options: [
    saying(FORMAT_OPTION, "of INPUT; recognised by content when left out"),
    { name: "target-format", short: "O", value: "FORMAT", about: "of OUTPUT: raw (default) or qcow2" },
    FORCE_SHARE_OPTION,
    saying(IMAGE_OPTS_OPTION, "INPUT is a list of options: driver=qcow2,file.filename=PATH"),
    OBJECT_OPTION,
    HELP_OPTION,
  ],
  lists: [
    {
      heading: "Operands",
      terms: [
        ["if=INPUT", "the image to copy from"],
        ["of=OUTPUT", "the new image; what was there is replaced"],
        ["bs=SIZE", "bytes of a block (default 512)"],
        ["count=BLOCKS", "copy so many blocks (default: all)"],
        ["skip=BLOCKS", "leave out so many blocks at the start of INPUT"],
      ],
    },
  ],
};

const DEFAULT_BLOCK = 512;
const MAX_BLOCK = 0x7fff_ffff;

interface Copy {
  readonly input: string;
  readonly output: string;
  readonly blockBytes: number;
  readonly count: number | undefined;
  readonly skip: number;
}

export async function ddCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, DD_MANUAL, context);
  if (parsed === undefined) return 0;
  const copy = copyOf(parsed.positionals);
  const image = imageNamed(copy.input, parsed, await givenSecrets(parsed), lastValue(parsed, "format"));
  const source = await openSource(image, context);
  try {
    const format = lastValue(parsed, "target-format") ?? "raw";
    requireTarget(format);
    await copyInto(format, copy, source, context);
    return 0;
  } finally {
    await source.close();
  }
}

function copyOf(operands: readonly string[]): Copy {
  const values = new Map<string, string>();
  let blockBytes = DEFAULT_BLOCK;
  let count: number | undefined;
  let skip = 0;
  for (const operand of operands) {
    const equals = operand.indexOf("=");
    const name = equals < 0 ? operand : operand.slice(0, equals);
    const value = operand.slice(equals + 1);
    if (equals < 0 || !["if", "of", "bs", "count", "skip"].includes(name)) {
      throw new UsageError(`unrecognized operand ${name}`, false);
    }
    values.set(name, value);
    if (name === "bs") blockBytes = sizeValue(value, "bs", 1, MAX_BLOCK);
    else if (name === "count") count = sizeValue(value, "count");
    else if (name === "skip") skip = sizeValue(value, "skip");
  }
  const input = values.get("if");
  const output = values.get("of");
  if (input === undefined || output === undefined) {
    throw new UsageError("Must specify both input and output files", false);
  }
  return { input, output, blockBytes, count, skip };
}

async function openSource(image: NamedImage, context: CommandContext): Promise<BlockDevice> {
  try {
    return await openForCommand({ ...image, readOnly: true, cache: WRITE_BACK }, context);
  } catch (error) {
    throw withSubject(`Could not open '${image.name}'`, error);
  }
}

function requireTarget(format: string): asserts format is "raw" | "qcow2" {
  try {
    requireCreatable(format);
  } catch (error) {
    if (!(error instanceof ZcowError) || error.code !== "FORMAT_UNKNOWN") throw error;
    throw new ZcowError(error.code, error.message, { data: error.data, stockText: "Unknown file format" });
  }
}

async function copyInto(
  format: "raw" | "qcow2",
  copy: Copy,
  source: BlockDevice,
  context: CommandContext,
): Promise<void> {
  const { input, output, blockBytes, count } = copy;
  const end = Math.min(source.size, count === undefined ? source.size : count * blockBytes);
  const skip = copy.skip * blockBytes;
  const isPastEnd = skip > end;
  const size = isPastEnd ? 0 : end - skip;
  await create(format, output, size);
  if (isPastEnd) {
    // To the stock tool that is no failure.
    printError(context, `${input}: cannot skip to specified offset`);
    return;
  }
  const target = await openTarget(format, output, context);
  try {
    await copyRange(source, target, { skip, length: size });
    await target.flush();
  } finally {
    await target.close();
  }
}

async function create(format: "raw" | "qcow2", path: string, size: number): Promise<void> {
  const subject = `${path}: error while creating output image`;
  try {
    await createImage(fileOfName(path), { format, size });
  } catch (error) {
    const isStorageFault = error instanceof ZcowError && error.category === "storage" && error.code !== "LOCKED";
    if (!isStorageFault) throw withSubject(subject, error);
    throw new ZcowError(error.code, error.message, {
      data: error.data,
      cause: error,
      stockText: `${subject}: Could not create '${path}': ${errnoText(error)}`,
    });
  }
}

async function openTarget(format: FormatName, path: string, context: CommandContext): Promise<BlockDevice> {
  try {
    return await openImage(fileOfName(path), {
      format,
      readOnly: false,
      onWarning: (warning) => printError(context, `warning: ${warning.message}`),
    });
  } catch (error) {
    throw withSubject(`Could not open '${path}'`, error);
  }
}
