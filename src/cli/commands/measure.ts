import { isZcowError, ZcowError } from "../../base/errors.js";
import type { BlockDevice } from "../../block/block-device.js";
import type { CreateImageOptions } from "../../formats/create-image.js";
import type { SecretLookup } from "../../formats/qcow2/create-options-parse.js";
import type { MeasuredBitmap, Measurement } from "../../formats/qcow2/measure.js";
import { describeImage } from "../../jobs/info.js";
import { type MeasureSource, measureImage, requireMeasurable } from "../../jobs/measure/measure.js";
import { WRITE_BACK } from "../cache-mode.js";
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
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { type Assignment, parseCreationOptions, unknownFileFormat } from "../creation-options.js";
import { explain, printError } from "../failure.js";
import { splitOptionList } from "../image-options.js";
import { jsonText } from "../json.js";
import type { CommandManual } from "../manual.js";
import { imageNamed, type NamedImage, withSource } from "../named-image.js";
import { allValues, isGiven, lastValue, type ParsedArguments, saying } from "../options.js";
import { sizeValue } from "../size-option.js";
import { openChosen, type SnapshotChoice, snapshotChoice } from "../snapshot-choice.js";
import { UsageError } from "../usage-error.js";

export const MEASURE_MANUAL: CommandManual = {
  name: "measure",
  synopsis: [
    "[--output human|json] [-O FORMAT] [-o NAME=VALUE[,...]] --size SIZE",
    "[--output human|json] [-O FORMAT] [-o NAME=VALUE[,...]] [-f FORMAT] [-l SNAPSHOT] [-U] FILE",
  ],
  about: ["Tells how large the file of a new image gets when an image is copied into it. Creates nothing."],
  options: [
    { name: "size", long: "size", value: "SIZE", about: "of an empty disk, in place of FILE" },
    { name: "target-format", short: "O", value: "FORMAT", about: "of the new image: raw (default) or qcow2" },
    { name: "options", short: "o", value: "NAME=VALUE[,...]", about: "options of the new image, as create has them" },
    saying(FORMAT_OPTION, "of FILE; recognised by content when left out"),
    { name: "snapshot", short: "l", long: "snapshot", value: "SNAPSHOT", about: "an internal snapshot, by id or name" },
    OUTPUT_OPTION,
    FORCE_SHARE_OPTION,
    IMAGE_OPTS_OPTION,
    OBJECT_OPTION,
    HELP_OPTION,
  ],
};

export async function measureCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, MEASURE_MANUAL, context);
  if (parsed === undefined) return 0;
  const given = allValues(parsed, "options").flatMap(splitOptionList);
  const snapshot = snapshotChoice(lastValue(parsed, "snapshot"));
  const size = sizeOption(parsed);
  const form = outputForm(parsed, ["human", "json"]);
  const name = subjectOf(parsed, size);
  const secretOf = await givenSecrets(parsed);
  const source =
    name === undefined ? { size: size ?? 0 } : await openSource(name, parsed, { snapshot, secretOf }, context);
  try {
    const measured = await measureImage(targetOptions(parsed, given, secretOf, context), source);
    context.output.out(form === "json" ? json(measured) : human(measured));
    return 0;
  } finally {
    if ("device" in source) await source.device.close();
  }
}

function sizeOption(parsed: ParsedArguments): number | undefined {
  const text = lastValue(parsed, "size");
  return text === undefined ? undefined : sizeValue(text, "image size");
}

/** The file name; undefined where the size was given in its place. */
function subjectOf(parsed: ParsedArguments, size: number | undefined): string | undefined {
  const [name, ...more] = parsed.positionals;
  if (more.length > 0) throw new UsageError("At most one filename argument is allowed.", false);
  if (name === undefined) {
    if (["image-opts", "format", "snapshot"].some((option) => isGiven(parsed, option))) {
      throw new UsageError("--image-opts, -f, and -l require a filename argument.", false);
    }
    if (size === undefined) throw new UsageError("Either --size N or one filename must be specified.", false);
    return undefined;
  }
  if (size !== undefined) throw new UsageError("--size N cannot be used together with a filename.", false);
  return name;
}

async function openSource(
  name: string,
  parsed: ParsedArguments,
  { snapshot, secretOf }: { readonly snapshot: SnapshotChoice | undefined; readonly secretOf: SecretLookup },
  context: CommandContext,
): Promise<MeasureSource & { readonly device: BlockDevice }> {
  const image = imageNamed(name, parsed, secretOf, lastValue(parsed, "format"));
  const device = await openChosen({ ...image, cache: WRITE_BACK }, snapshot, context);
  return { device, bitmaps: await bitmapsOf(device, image, context) };
}

async function bitmapsOf(
  device: BlockDevice,
  image: NamedImage,
  context: CommandContext,
): Promise<readonly MeasuredBitmap[] | undefined> {
  if (device.format !== "qcow2") return undefined;
  const { qcow2 } = await withSource({ ...image, forceShare: true }, "inspect", context, ({ source }) =>
    describeImage(source, { format: "qcow2", forceShare: true }),
  );
  if (qcow2 === undefined || qcow2.version === 2) return undefined;
  return (qcow2.bitmaps ?? []).filter(({ inUse }) => !inUse);
}

function targetOptions(
  parsed: ParsedArguments,
  given: readonly Assignment[],
  secretOf: SecretLookup,
  context: CommandContext,
): CreateImageOptions {
  const format = lastValue(parsed, "target-format") ?? "raw";
  try {
    requireMeasurable(format);
  } catch (error) {
    throw isZcowError(error, "FORMAT_UNKNOWN") ? unknownFileFormat(error, format) : error;
  }
  try {
    const creation = parseCreationOptions(format, given, secretOf);
    if ("options" in creation) return creation.options;
    // How a raw disk is allocated changes nothing of its size.
    if (format === "raw") return { format, size: 0 };
    throw creation.refusal;
  } catch (error) {
    if (!isZcowError(error)) throw error;
    // The stock tool refuses what it cannot read at once, and a choice that does not exist when it measures.
    if (error.data.option === "preallocation") {
      throw new ZcowError(error.code, error.message, {
        data: error.data,
        stockText: `invalid parameter value: ${error.data.value}`,
      });
    }
    printError(context, explain(error, context));
    throw new UsageError(`Invalid options for file format '${format}'`, false);
  }
}

function human({ required, fullyAllocated, bitmaps }: Measurement): string {
  const last = bitmaps === undefined ? "" : `bitmaps size: ${bitmaps}\n`;
  return `required size: ${required}\nfully allocated size: ${fullyAllocated}\n${last}`;
}

function json({ required, fullyAllocated, bitmaps }: Measurement): string {
  const first = bitmaps === undefined ? {} : { bitmaps };
  return jsonText({ ...first, required, "fully-allocated": fullyAllocated });
}
