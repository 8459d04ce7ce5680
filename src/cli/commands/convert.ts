import { type Warning, ZcowError } from "../../base/errors.js";
import { parseSize } from "../../base/size-text.js";
import { MiB, SECTOR_SIZE } from "../../base/units.js";
import type { BlockDevice } from "../../block/block-device.js";
import { createImage } from "../../formats/create-image.js";
import { openImage } from "../../formats/open-image.js";
import type { SecretLookup } from "../../formats/qcow2/create-options-parse.js";
import { formatDriver } from "../../formats/registry.js";
import { convertDisks } from "../../jobs/convert/convert.js";
import { type CacheMode, cacheMode, WRITE_BACK } from "../cache-mode.js";
import {
  FORCE_SHARE_OPTION,
  FORMAT_OPTION,
  givenSecrets,
  HELP_OPTION,
  OBJECT_OPTION,
  PROGRESS_OPTION,
  QUIET_OPTION,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { type Assignment, parseCreationOptions, requireFileFormat } from "../creation-options.js";
import { errnoText, explain, printError, withSubject } from "../failure.js";
import { helpText } from "../help-text.js";
import { splitOptionList } from "../image-options.js";
import { type CommandManual, optionsOf } from "../manual.js";
import { formatChoice, openForCommand } from "../open.js";
import { allValues, isGiven, lastValue, type ParsedArguments, parseArguments, saying } from "../options.js";
import { ProgressLine } from "../progress.js";
import { UsageError } from "../usage-error.js";

export const CONVERT_MANUAL: CommandManual = {
  name: "convert",
  synopsis: ["[OPTION]... SOURCE [SOURCE]... TARGET"],
  about: ["Copies disk images, one after the other, into a new image."],
  options: [
    saying(FORMAT_OPTION, "of the sources; recognised by content when left out"),
    { name: "target-format", short: "O", value: "FORMAT", about: "of the target: raw (default) or qcow2" },
    { name: "options", short: "o", value: "NAME=VALUE[,...]", about: "options of the target, as create has them" },
    { name: "compress", short: "c", about: "store clusters compressed (qcow2)" },
    {
      name: "sparse",
      short: "S",
      value: "SIZE",
      about: "runs of zeros that long are left out (default 4k); 0 writes everything",
    },
    { name: "no-create", short: "n", about: "write into an existing target" },
    { name: "target-is-zero", long: "target-is-zero", about: "with -n: the target reads as zeros already" },
    {
      name: "backing",
      short: "B",
      value: "FILE",
      about: "backing file of the target: what it holds already is not copied",
    },
    { name: "backing-format", short: "F", value: "FORMAT", about: "format of the backing file" },
    { name: "salvage", long: "salvage", about: "unreadable sectors become zeros" },
    { name: "coroutines", short: "m", value: "NUMBER", about: "requests in flight, 1 to 16 (default 8)" },
    { name: "out-of-order", short: "W", about: "accepted; writes need no order here" },
    { name: "cache", short: "t", value: "MODE", about: "cache mode of the target" },
    { name: "source-cache", short: "T", value: "MODE", about: "cache mode of the sources" },
    OBJECT_OPTION,
    PROGRESS_OPTION,
    QUIET_OPTION,
    saying(FORCE_SHARE_OPTION, "ignore the locks of other programs on the sources"),
    HELP_OPTION,
  ],
};

const MAX_SPARSE = 16 * MiB;
const MAX_COROUTINES = 16;

interface Conversion {
  readonly sources: readonly string[];
  readonly target: string;
  readonly sourceFormat: string | undefined;
  readonly targetFormat: string;
  readonly create: boolean;
  readonly targetIsZero: boolean;
  readonly compressed: boolean;
  readonly sparseBytes: number | undefined;
  readonly piecesInFlight: number;
  readonly salvage: boolean;
  readonly cache: CacheMode;
  readonly sourceCache: CacheMode;
  readonly given: readonly Assignment[];
  readonly secretOf: SecretLookup;
  readonly progress: boolean;
  readonly quiet: boolean;
  readonly forceShare: boolean;
}

export async function convertCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = parseArguments(args, optionsOf(CONVERT_MANUAL));
  if (isGiven(parsed, "help")) {
    context.output.out(helpText(CONVERT_MANUAL, context));
    return 0;
  }
  await convert(conversionOf(parsed, await givenSecrets(parsed)), context);
  return 0;
}

function conversionOf(parsed: ParsedArguments, secretOf: SecretLookup): Conversion {
  const sparseBytes = sparseOption(lastValue(parsed, "sparse"));
  const piecesInFlight = coroutines(lastValue(parsed, "coroutines"));
  const create = !isGiven(parsed, "no-create");
  const targetIsZero = isGiven(parsed, "target-is-zero");
  if (targetIsZero && create) throw new UsageError("--target-is-zero requires use of -n flag", false);
  const sources = parsed.positionals.slice(0, -1);
  const target = parsed.positionals.at(-1);
  if (sources.length === 0 || target === undefined) throw new UsageError("Must specify image file name", false);
  return {
    sources,
    target,
    sourceFormat: lastValue(parsed, "format"),
    targetFormat: lastValue(parsed, "target-format") ?? "raw",
    create,
    targetIsZero,
    compressed: isGiven(parsed, "compress"),
    sparseBytes,
    piecesInFlight,
    salvage: isGiven(parsed, "salvage"),
    cache: cacheOption(lastValue(parsed, "cache"), "cache option"),
    sourceCache: cacheOption(lastValue(parsed, "source-cache"), "source cache option"),
    given: creationOptions(parsed),
    secretOf,
    progress: isGiven(parsed, "progress") && !isGiven(parsed, "quiet"),
    quiet: isGiven(parsed, "quiet"),
    forceShare: isGiven(parsed, "force-share"),
  };
}

function sparseOption(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const subject = "Invalid buffer size for sparse output specified.";
  const value = parseSize(text);
  if (value === undefined) {
    throw new UsageError(
      `${subject} You may use k, M, G, T, P or E suffixes for\nkilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.`,
      false,
    );
  }
  if (value % SECTOR_SIZE === 0 && value <= MAX_SPARSE) return value;
  throw new UsageError(
    `${subject} Valid sizes are multiples of ${SECTOR_SIZE} up to ${MAX_SPARSE}. Select 0 to disable sparse detection (fully allocates output).`,
    false,
  );
}

function coroutines(text: string | undefined): number {
  if (text === undefined) return 8;
  const value = /^\d+$/.test(text) ? Number(text) : 0;
  if (value >= 1 && value <= MAX_COROUTINES) return value;
  throw new UsageError(
    `Invalid number of coroutines. Allowed number of coroutines is between 1 and ${MAX_COROUTINES}`,
    false,
  );
}

function cacheOption(text: string | undefined, words: string): CacheMode {
  if (text === undefined) return WRITE_BACK;
  const mode = cacheMode(text);
  if (mode === undefined) throw new UsageError(`Invalid ${words}: ${text}`, false);
  return mode;
}

function creationOptions(parsed: ParsedArguments): Assignment[] {
  const given = allValues(parsed, "options").flatMap(splitOptionList);
  const backing = lastValue(parsed, "backing");
  const backingFormat = lastValue(parsed, "backing-format");
  if (backing !== undefined) given.push(["backing_file", backing]);
  if (backingFormat !== undefined) given.push(["backing_fmt", backingFormat]);
  return given;
}

async function convert(conversion: Conversion, context: CommandContext): Promise<void> {
  const opened: BlockDevice[] = [];
  try {
    requireFileFormat(conversion.targetFormat);
    requireCompression(conversion);
    for (const path of conversion.sources) opened.push(await openSource(path, conversion, context));
    const sources = [...opened];
    const size = sources.reduce((sum, source) => sum + source.size, 0);
    if (conversion.create) await createTarget(conversion, size, context);
    const target = await openTarget(conversion, context);
    opened.push(target);
    await copy(conversion, sources, target, context);
    await target.flush();
  } finally {
    await Promise.all(opened.map((device) => device.close()));
  }
}

function requireCompression({ compressed, targetFormat }: Conversion): void {
  if (!compressed || formatDriver(targetFormat).compresses) return;
  throw new ZcowError("NOT_SUPPORTED", `the format '${targetFormat}' has no compression`, {
    data: { option: "-c", value: targetFormat },
    stockText: "Compression not supported for this file format",
  });
}

async function copy(
  conversion: Conversion,
  sources: readonly BlockDevice[],
  target: BlockDevice,
  context: CommandContext,
): Promise<void> {
  const { compressed, sparseBytes, piecesInFlight, salvage } = conversion;
  const line = new ProgressLine(context, conversion.progress);
  const onUnreadable = (offset: number, _length: number, error: unknown): void => {
    if (!conversion.quiet)
      printError(context, `warning: error while reading offset ${offset}: ${explain(error, context)}`);
  };
  await convertDisks(sources, target, {
    compressed,
    piecesInFlight,
    targetIsZero: conversion.create || conversion.targetIsZero,
    onProgress: (done, total) => line.report(done, total),
    ...(sparseBytes === undefined ? {} : { sparseBytes }),
    ...(salvage ? { onUnreadable } : {}),
  });
  line.finish();
}

async function openSource(path: string, conversion: Conversion, context: CommandContext): Promise<BlockDevice> {
  const { sourceFormat, forceShare, sourceCache } = conversion;
  try {
    return await openForCommand(
      { path, format: sourceFormat, readOnly: true, forceShare, cache: sourceCache },
      context,
    );
  } catch (error) {
    throw withSubject(`Could not open '${path}'`, error);
  }
}

async function createTarget(conversion: Conversion, size: number, context: CommandContext): Promise<void> {
  const { target, targetFormat, given } = conversion;
  const parsed = parseCreationOptions(
    targetFormat,
    given.filter(([name]) => name !== "size"),
    conversion.secretOf,
  );
  if ("refusal" in parsed) throw parsed.refusal;
  const onWarning = (warning: Warning): void => printError(context, `warning: ${warning.message}`);
  try {
    await createImage(target, { ...parsed.options, size, onWarning });
  } catch (error) {
    const subject = `${target}: error while converting ${targetFormat}`;
    const isOther = !(error instanceof ZcowError) || error.category !== "storage";
    if (isOther || error.code === "LOCKED") throw withSubject(subject, error);
    throw new ZcowError(error.code, error.message, {
      data: error.data,
      cause: error,
      stockText: `${subject}: Could not create '${target}': ${errnoText(error)}`,
    });
  }
}

/** Writes go through the thread pool: while one is on its way, the next piece is read. */
async function openTarget(conversion: Conversion, context: CommandContext): Promise<BlockDevice> {
  const { target, targetFormat, cache } = conversion;
  try {
    return await openImage(target, {
      format: formatChoice(targetFormat),
      readOnly: false,
      implicitFiles: "allow",
      onWarning: (warning) => printError(context, `warning: ${warning.message}`),
      file: { direct: cache.direct, io: "pool" },
    });
  } catch (error) {
    throw withSubject(`Could not open '${target}'`, error);
  }
}
