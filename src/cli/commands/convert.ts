import { type Warning, ZcowError } from "../../base/errors.js";
import { parseSize } from "../../base/size-text.js";
import { MiB, SECTOR_SIZE } from "../../base/units.js";
import type { BlockDevice, ZonedLimits } from "../../block/block-device.js";
import type { PassphraseSource } from "../../block/passphrase.js";
import { type CreateImageOptions, createImage } from "../../formats/create-image.js";
import { openImage } from "../../formats/open-image.js";
import type { SecretLookup } from "../../formats/qcow2/create-options-parse.js";
import { Qcow2Device } from "../../formats/qcow2/device.js";
import { formatDriver } from "../../formats/registry.js";
import { DEEP_QUEUE_THREADS, prepareForCopies, requestThreadPool } from "../../host/thread-pool.js";
import { convertDisks } from "../../jobs/convert/convert.js";
import type { BitmapsToCopy } from "../../jobs/convert/copy-bitmaps.js";
import { type CacheMode, cacheMode, givenCacheMode } from "../cache-mode.js";
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
import { asksForOptions, optionHelp } from "../create-options-text.js";
import {
  type Assignment,
  givenAssignments,
  type ParsedCreation,
  parseCreationOptions,
  requireBackable,
  requireFileFormat,
} from "../creation-options.js";
import { errnoText, explain, printError, withSubject } from "../failure.js";
import { fileOfName } from "../file-name.js";
import type { CommandManual } from "../manual.js";
import { imageOf, type NamedImage, withSource } from "../named-image.js";
import { formatChoice, openForCommand } from "../open.js";
import { allValues, isGiven, judgeInOrder, lastValue, type ParsedArguments, saying } from "../options.js";
import { ProgressLine } from "../progress.js";
import { openChosen, type SnapshotChoice, snapshotChoice } from "../snapshot-choice.js";
import { UsageError } from "../usage-error.js";

export const CONVERT_MANUAL: CommandManual = {
  name: "convert",
  synopsis: ["[OPTION]... SOURCE [SOURCE]... TARGET"],
  about: [
    "Copies disk images, one after the other, into a new image. SOURCE may be '-' for a raw disk on standard input, TARGET for standard output.",
  ],
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
    {
      name: "snapshot",
      short: "l",
      value: "SNAPSHOT",
      about: "read this internal snapshot, by id or name, or snapshot.id=ID,snapshot.name=NAME",
    },
    { name: "bitmaps", long: "bitmaps", about: "copy the persistent dirty bitmaps of the source, too" },
    {
      name: "skip-broken-bitmaps",
      long: "skip-broken-bitmaps",
      about: "with --bitmaps: leave out inconsistent ones instead of failing",
    },
    { name: "rate", short: "r", value: "BYTES", about: "bytes per second at most" },
    { name: "copy-offload", short: "C", about: "accepted; not with -c or -S" },
    saying(IMAGE_OPTS_OPTION, "SOURCE is a list of options: driver=qcow2,file.filename=PATH"),
    {
      name: "target-image-opts",
      long: "target-image-opts",
      about: "with -n: TARGET is a list of options",
    },
    { name: "salvage", long: "salvage", about: "unreadable sectors become zeros" },
    { name: "coroutines", short: "m", value: "NUMBER", about: "requests in flight, 1 to 16 (default 8)" },
    { name: "out-of-order", short: "W", about: "accepted; writes need no order here" },
    {
      name: "cache",
      short: "t",
      value: "MODE",
      about: "cache mode of the target (default unsafe: nothing waits for the disk)",
    },
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
  /** The format was named. */
  readonly targetFormatGiven: boolean;
  readonly imageOptions: boolean;
  readonly targetImageOptions: boolean;
  readonly snapshot: SnapshotChoice | undefined;
  readonly bitmaps: "none" | "all" | "sound";
  readonly rate: number;
  readonly hasBacking: boolean;
  readonly create: boolean;
  readonly targetIsZero: boolean;
  readonly compressed: boolean;
  readonly sparseBytes: number | undefined;
  readonly piecesInFlight: number | undefined;
  readonly salvage: boolean;
  /** Judged when the target is opened. */
  readonly cacheName: string;
  readonly sourceCache: CacheMode;
  /** Options of `-o`. */
  readonly given: readonly Assignment[];
  /** The backing file and its format, of options of their own. */
  readonly backing: readonly Assignment[];
  readonly secretOf: SecretLookup;
  readonly progress: boolean;
  readonly quiet: boolean;
  readonly forceShare: boolean;
}

export async function convertCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, CONVERT_MANUAL, context);
  if (parsed === undefined) return 0;
  const conversion = conversionOf(parsed, await givenSecrets(parsed));
  if (conversion === "option-help") {
    const format = lastValue(parsed, "target-format") ?? "raw";
    requireFileFormat(format);
    const target = parsed.positionals.length > 1 ? parsed.positionals.at(-1) : undefined;
    context.output.out(optionHelp(format, target, context.standIn));
    return 0;
  }
  if (cacheMode(conversion.cacheName)?.direct === true || conversion.sourceCache.direct)
    requestThreadPool(DEEP_QUEUE_THREADS);
  else prepareForCopies();
  if ([...conversion.sources, conversion.target].includes("-")) await convertStream(conversion, context);
  else await convert(conversion, context);
  return 0;
}

/** What is asked for; only the list of options, perhaps, which the stock tool prints before it looks for names. */
function conversionOf(parsed: ParsedArguments, secretOf: SecretLookup): Conversion | "option-help" {
  judgeInOrder(parsed, valuesOf);
  const { sparseBytes, piecesInFlight, rate, snapshot, given } = valuesOf(parsed);
  const create = !isGiven(parsed, "no-create");
  const compressed = isGiven(parsed, "compress");
  requireCombination(parsed, create, compressed);
  if (asksForOptions(allValues(parsed, "options"))) return "option-help";
  const sources = parsed.positionals.slice(0, -1);
  const target = parsed.positionals.at(-1);
  if (sources.length === 0 || target === undefined) throw new UsageError("Must specify image file name", false);
  const hasBacking = given.some(([name]) => name === "backing_file") || isGiven(parsed, "backing");
  if (sources.length > 1 && snapshot !== undefined) {
    throw new UsageError("No support for concatenating multiple snapshot", false);
  }
  return {
    sources,
    target,
    sourceFormat: lastValue(parsed, "format"),
    targetFormat: lastValue(parsed, "target-format") ?? "raw",
    targetFormatGiven: isGiven(parsed, "target-format"),
    imageOptions: isGiven(parsed, "image-opts"),
    targetImageOptions: isGiven(parsed, "target-image-opts"),
    snapshot,
    bitmaps: !isGiven(parsed, "bitmaps") ? "none" : isGiven(parsed, "skip-broken-bitmaps") ? "sound" : "all",
    rate,
    hasBacking,
    create,
    targetIsZero: isGiven(parsed, "target-is-zero"),
    compressed,
    sparseBytes,
    piecesInFlight,
    salvage: isGiven(parsed, "salvage"),
    cacheName: lastValue(parsed, "cache") ?? "unsafe",
    sourceCache: givenCacheMode(lastValue(parsed, "source-cache") ?? "writeback", "source cache option"),
    given,
    backing: backingOptions(parsed),
    secretOf,
    progress: isGiven(parsed, "progress") && !isGiven(parsed, "quiet"),
    quiet: isGiven(parsed, "quiet"),
    forceShare: isGiven(parsed, "force-share"),
  };
}

type Values = Pick<Conversion, "sparseBytes" | "piecesInFlight" | "rate" | "snapshot" | "given">;

/** Fails for a value that is none. */
function valuesOf(parsed: ParsedArguments): Values {
  return {
    sparseBytes: sparseOption(lastValue(parsed, "sparse")),
    piecesInFlight: coroutines(lastValue(parsed, "coroutines")),
    rate: rateOption(lastValue(parsed, "rate")),
    snapshot: snapshotChoice(lastValue(parsed, "snapshot")),
    given: givenAssignments(allValues(parsed, "options")),
  };
}

/** In the order in which the stock tool complains. */
function requireCombination(parsed: ParsedArguments, create: boolean, compressed: boolean): void {
  const refuse = (text: string): never => {
    throw new UsageError(text, false);
  };
  if (isGiven(parsed, "skip-broken-bitmaps") && !isGiven(parsed, "bitmaps")) {
    refuse("Use of --skip-broken-bitmaps requires --bitmaps");
  }
  if (isGiven(parsed, "copy-offload")) {
    if (compressed) refuse("Cannot enable copy offloading when -c is used");
    if (isGiven(parsed, "sparse")) refuse("Cannot enable copy offloading when -S is used");
    if (isGiven(parsed, "salvage")) refuse("Cannot use copy offloading in salvaging mode");
  }
  if (isGiven(parsed, "target-image-opts") && create) refuse("--target-image-opts requires use of -n flag");
  if (!create && isGiven(parsed, "options")) refuse("-o has no effect when skipping image creation");
  if (isGiven(parsed, "target-is-zero") && create) refuse("--target-is-zero requires use of -n flag");
  const described = isGiven(parsed, "image-opts") && isGiven(parsed, "format");
  if (described || (isGiven(parsed, "target-image-opts") && isGiven(parsed, "target-format"))) {
    refuse("--image-opts and --format are mutually exclusive");
  }
}

function requireSingleSource({ sources, hasBacking }: Conversion): void {
  if (sources.length === 1 || !hasBacking) return;
  const text = "Having a backing file for the target makes no sense when concatenating multiple input images";
  throw new UsageError(text, false);
}

function rateOption(text: string | undefined): number {
  if (text === undefined) return 0;
  const value = parseSize(text);
  if (value !== undefined) return value;
  throw new UsageError(
    "Invalid rate limit specified. You may use k, M, G, T, P or E suffixes for\n" +
      "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.",
    false,
  );
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

function coroutines(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = /^\d+$/.test(text) ? Number(text) : 0;
  if (value >= 1 && value <= MAX_COROUTINES) return value;
  throw new UsageError(
    `Invalid number of coroutines. Allowed number of coroutines is between 1 and ${MAX_COROUTINES}`,
    false,
  );
}

function backingOptions(parsed: ParsedArguments): Assignment[] {
  const [file, format] = [lastValue(parsed, "backing"), lastValue(parsed, "backing-format")];
  return [
    ...(file === undefined ? [] : [["backing_file", file] as const]),
    ...(format === undefined ? [] : [["backing_fmt", format] as const]),
  ];
}

/** What the options of the target make. */
function creationOf({ targetFormat, given, backing, secretOf }: Conversion): ParsedCreation {
  // The size follows from the sources.
  const withoutSize = given.filter(([name]) => name !== "size");
  const creation = parseCreationOptions(targetFormat, withoutSize, secretOf, backing);
  requireBackable(targetFormat, backing);
  return creation;
}

async function convert(conversion: Conversion, context: CommandContext): Promise<void> {
  const line = new ProgressLine(context, conversion.progress);
  line.start();
  await line.during(convertFiles(conversion, line, context));
  line.finish();
}

async function convertFiles(conversion: Conversion, line: ProgressLine, context: CommandContext): Promise<void> {
  const opened: BlockDevice[] = [];
  let bitmaps: BitmapsToCopy | undefined;
  try {
    for (const name of conversion.sources) opened.push(await openSource(name, conversion, context));
    const sources = [...opened];
    if (!conversion.targetImageOptions) requireFileFormat(conversion.targetFormat);
    const creation = conversion.create ? creationOf(conversion) : undefined;
    requireSingleSource(conversion);
    requireBackingFormat(conversion);
    requireCompression(conversion);
    bitmaps = await sourceBitmaps(conversion, context);
    const size = sources.reduce((sum, source) => sum + source.size, 0);
    const zones = zonesOf(conversion, sources);
    if (creation !== undefined) await createTarget(conversion, creation, size, zones, context);
    const target = await openTarget(conversion, context);
    opened.push(target);
    if (bitmaps !== undefined) requireBitmaps(target);
    await copy(conversion, sources, target, line, context);
    await target.flush();
  } finally {
    await Promise.all(opened.map((device) => device.close()));
  }
  if (bitmaps === undefined) return;
  const { addBitmaps } = await import("../../jobs/convert/copy-bitmaps.js");
  await addBitmaps(fileOfName(conversion.target), bitmaps.bitmaps);
}

/** From standard input, to standard output, or both. */
async function convertStream(conversion: Conversion, context: CommandContext): Promise<void> {
  const streams = await import("../convert-streams.js");
  const { sources, target, targetFormat, compressed, create, hasBacking, bitmaps, given, sparseBytes } = conversion;
  requireFileFormat(targetFormat);
  if (!create || hasBacking || bitmaps !== "none" || conversion.targetImageOptions) {
    throw new UsageError("-n, -B, --bitmaps and --target-image-opts cannot be used with '-'", false);
  }
  const input = sources.includes(streams.STREAM_NAME) ? streams.inputFile() : undefined;
  const named = {
    ...conversion,
    sources: sources.map((name) => (name === streams.STREAM_NAME ? (input ?? name) : name)),
  };
  const isStream = named.sources.includes(streams.STREAM_NAME);
  if (target !== streams.STREAM_NAME && !isStream) return convert(named, context);
  if (isStream && (sources.length > 1 || (conversion.sourceFormat ?? "raw") !== "raw" || conversion.imageOptions)) {
    throw new UsageError("Only one raw disk can be read from a pipe", false);
  }
  if (isStream && target === streams.STREAM_NAME) {
    throw new UsageError("One of source and target must be a file: a pipe cannot be read twice", false);
  }
  requireCompression(conversion);
  if (!isStream) {
    if (compressed)
      throw new UsageError("-c cannot be used with '-' as target: what comes first depends on all that follows", false);
    streams.requireStreamable(targetFormat, given);
    return sendToOutput(named, context);
  }
  await createTarget(conversion, creationOf(conversion), 0, undefined, context);
  const format = targetFormat === "qcow2" ? "qcow2" : "raw";
  const open = (): Promise<BlockDevice> => openTarget(conversion, context);
  await streams.takeFromInput(
    { path: target, format, passphrase: targetPassphrase(conversion), open },
    { compressed, sparseBytes },
  );
}

async function sendToOutput(conversion: Conversion, context: CommandContext): Promise<void> {
  const opened: BlockDevice[] = [];
  try {
    for (const name of conversion.sources) opened.push(await openSource(name, conversion, context));
    const creation = creationOf(conversion);
    if ("refusal" in creation) throw creation.refusal;
    const streams = await import("../convert-streams.js");
    await streams.sendToOutput(opened, conversion.targetFormat, creation.options);
  } finally {
    await Promise.all(opened.map((device) => device.close()));
  }
}

function requireBackingFormat({ create, given, backing }: Conversion): void {
  const has = (option: string): boolean => [...given, ...backing].some(([name]) => name === option);
  if (!create || !has("backing_file") || has("backing_fmt")) return;
  throw new UsageError("Use of backing file requires explicit backing format", false);
}

/** The bitmaps that go along; undefined when none are asked for. */
async function sourceBitmaps(conversion: Conversion, context: CommandContext): Promise<BitmapsToCopy | undefined> {
  if (conversion.bitmaps === "none") return undefined;
  const [path, ...more] = conversion.sources;
  if (path === undefined || more.length > 0) {
    throw new UsageError("Copying bitmaps only possible with single source", false);
  }
  const { bitmapsToCopy } = await import("../../jobs/convert/copy-bitmaps.js");
  const image = sourceImage(path, conversion);
  const found = await withSource(image, "read", context, ({ source, format }) =>
    bitmapsToCopy(source, format, conversion.forceShare, conversion.bitmaps === "sound"),
  );
  for (const name of found.broken) printError(context, `warning: Skipping inconsistent bitmap '${name}'`);
  return found;
}

function requireBitmaps(target: BlockDevice): void {
  if (target instanceof Qcow2Device && target.header.version === 3) return;
  throw new ZcowError("NOT_SUPPORTED", `${target.name} is ${target.format} and cannot have bitmaps`, {
    data: { path: target.name, value: target.format },
    stockText: `Format driver '${target.format}' does not support bitmaps`,
  });
}

/** The zones of a zoned source, for a target of a format that has zones. */
function zonesOf({ targetFormat }: Conversion, sources: readonly BlockDevice[]): ZonedLimits | undefined {
  const [only, ...more] = sources;
  return targetFormat === "qcow2" && more.length === 0 ? only?.limits.zoned : undefined;
}

function requireCompression({ compressed, targetFormat, given, targetImageOptions }: Conversion): void {
  if (!compressed || targetImageOptions) return;
  if (given.some(([name, value]) => name === "preallocation" && value !== "off")) {
    throw new UsageError("Compression and preallocation not supported at the same time", false);
  }
  if (formatDriver(targetFormat).compresses) return;
  throw new ZcowError("NOT_SUPPORTED", `the format '${targetFormat}' has no compression`, {
    data: { option: "-c", value: targetFormat },
    stockText: "Compression not supported for this file format",
  });
}

async function copy(
  conversion: Conversion,
  sources: readonly BlockDevice[],
  target: BlockDevice,
  line: ProgressLine,
  context: CommandContext,
): Promise<void> {
  const { compressed, sparseBytes, piecesInFlight, salvage } = conversion;
  const onUnreadable = (offset: number, _length: number, error: unknown): void => {
    if (!conversion.quiet)
      printError(context, `warning: error while reading offset ${offset}: ${explain(error, context)}`);
  };
  await convertDisks(sources, target, {
    compressed,
    targetIsZero: conversion.create || conversion.targetIsZero,
    targetHasBacking: conversion.hasBacking,
    rate: conversion.rate,
    onProgress: (done, total) => line.report(done, total),
    ...(sparseBytes === undefined ? {} : { sparseBytes }),
    ...(piecesInFlight === undefined ? {} : { piecesInFlight }),
    ...(salvage ? { onUnreadable } : {}),
  });
}

function sourceImage(name: string, { imageOptions, sourceFormat, forceShare, secretOf }: Conversion): NamedImage {
  return imageOf(name, { isDescribed: imageOptions, format: sourceFormat, forceShare, secretOf });
}

function openSource(name: string, conversion: Conversion, context: CommandContext): Promise<BlockDevice> {
  return openChosen({ ...sourceImage(name, conversion), cache: conversion.sourceCache }, conversion.snapshot, context);
}

async function createTarget(
  conversion: Conversion,
  creation: ParsedCreation,
  size: number,
  zones: ZonedLimits | undefined,
  context: CommandContext,
): Promise<void> {
  const { target, targetFormat } = conversion;
  if ("refusal" in creation) throw creation.refusal;
  const onWarning = (warning: Warning): void => printError(context, `warning: ${warning.message}`);
  try {
    const options = zones === undefined ? creation.options : withZones(creation.options, zones);
    await createImage(fileOfName(target), { ...options, size, onWarning });
  } catch (error) {
    const subject = `${target}: error while converting ${targetFormat}`;
    const isOther = !(error instanceof ZcowError) || error.category !== "storage";
    if (isOther || error.code === "LOCKED") throw withSubject(subject, error);
    throw new ZcowError(error.code, error.message, {
      data: error.data,
      cause: error,
      stockText: creationText(error, subject, target),
    });
  }
}

function creationText(error: ZcowError, subject: string, target: string): string {
  if (error.code === "LOCKED") return `${subject}: ${error.stockText ?? errnoText(error)}`;
  const { path = target } = error.data;
  // The stock tool looks at the backing file when it opens what it has made.
  return path === target
    ? `${subject}: Could not create '${target}': ${errnoText(error)}`
    : `Could not open '${target}': Could not open backing file: Could not open '${path}': ${errnoText(error)}`;
}

/** The zones of the source, unless something is said about zones. */
function withZones(options: CreateImageOptions, zones: ZonedLimits): CreateImageOptions {
  if (options.format !== "qcow2" || options.zone !== undefined || options.backingFile !== undefined) return options;
  const { zoneSize, zoneCapacity, conventionalZones, maxOpenZones, maxActiveZones } = zones;
  const zone = { size: zoneSize, capacity: zoneCapacity, conventionalZones, maxOpenZones, maxActiveZones };
  return { ...options, zone: { mode: "host-managed", ...zone } };
}

/** What opens a new target that is encrypted. */
function targetPassphrase({ given, secretOf }: Conversion): PassphraseSource | undefined {
  const secret = given.findLast(([name]) => name === "encrypt.key-secret");
  return secret === undefined ? undefined : secretOf(secret[1]);
}

/** Writes go through the thread pool: while one is on its way, the next piece is read. */
async function openTarget(conversion: Conversion, context: CommandContext): Promise<BlockDevice> {
  const { target, targetFormat } = conversion;
  const cache = givenCacheMode(conversion.cacheName);
  const image = targetImage(conversion);
  try {
    if (image.options !== undefined) {
      return await openForCommand({ ...image, readOnly: false, cache }, context);
    }
    return await openImage(image.path, {
      format: formatChoice(conversion.targetImageOptions ? image.format : targetFormat),
      readOnly: image.readOnly,
      implicitFiles: "allow",
      passphrase: image.passphrase ?? targetPassphrase(conversion),
      onWarning: (warning) => printError(context, `warning: ${warning.message}`),
      file: { direct: cache.direct, io: "pool", noFlush: cache.noFlush ?? false },
    });
  } catch (error) {
    throw withSubject(`Could not open '${target}'`, error);
  }
}

function targetImage({
  target,
  targetFormat,
  targetFormatGiven,
  targetImageOptions,
  secretOf,
}: Conversion): NamedImage {
  const format = targetFormatGiven ? targetFormat : undefined;
  return imageOf(target, { isDescribed: targetImageOptions, format, forceShare: false, secretOf });
}
