import { ZcowError } from "../../base/errors.js";
import type { BlockDevice } from "../../block/block-device.js";
import { type BenchOptions, benchDisk } from "../../jobs/bench/bench.js";
import { type CacheMode, cacheMode, WRITE_BACK } from "../cache-mode.js";
import { commandArguments } from "../command-arguments.js";
import {
  FORCE_SHARE_OPTION,
  FORMAT_OPTION,
  givenSecrets,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  OBJECT_OPTION,
  QUIET_OPTION,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { EXIT_FAILURE, errnoText, explain, printError, withSubject } from "../failure.js";
import type { CommandManual } from "../manual.js";
import { type NamedImage, namedImage, onlyName } from "../named-image.js";
import { openForCommand } from "../open.js";
import { allValues, isGiven, judgeInOrder, lastValue, type ParsedArguments, saying } from "../options.js";
import { sizeValue } from "../size-option.js";
import { UsageError } from "../usage-error.js";

export const BENCH_MANUAL: CommandManual = {
  name: "bench",
  synopsis: ["[OPTION]... FILE"],
  about: ["Sends a row of equal requests to an image, and tells how long they took."],
  options: [
    { name: "count", short: "c", value: "NUMBER", about: "requests in all (default 75000)" },
    { name: "depth", short: "d", value: "NUMBER", about: "requests in flight (default 64)" },
    FORMAT_OPTION,
    { name: "offset", short: "o", value: "OFFSET", about: "where the first one starts (default 0)" },
    { name: "bytes", short: "s", value: "SIZE", about: "bytes per request (default 4096)" },
    { name: "step", short: "S", value: "SIZE", about: "from one request to the next (default: their size)" },
    { name: "write", short: "w", about: "write, in place of reading: what the image holds there is lost" },
    { name: "pattern", long: "pattern", value: "BYTE", about: "what is written (default 0)" },
    { name: "flush-interval", long: "flush-interval", value: "NUMBER", about: "flush after so many writes" },
    { name: "no-drain", long: "no-drain", about: "do not wait for writes in flight before a flush" },
    { name: "cache", short: "t", value: "MODE", about: "cache mode" },
    { name: "native", short: "n", about: "same as -i native" },
    {
      name: "aio",
      short: "i",
      value: "AIO",
      about: "threads, native or io_uring: accepted; the way to the file follows from the cache mode",
    },
    OBJECT_OPTION,
    saying(QUIET_OPTION, "accepted"),
    FORCE_SHARE_OPTION,
    IMAGE_OPTS_OPTION,
    HELP_OPTION,
  ],
};

const DEFAULT_COUNT = 75_000;
const DEFAULT_DEPTH = 64;
const DEFAULT_BYTES = 4096;
/** 2^31 - 1: numbers of the stock tool. */
const MAX_NUMBER = 0x7fff_ffff;
const MAX_BYTE = 255;
const AIO_MODES = ["threads", "native", "io_uring"];

export async function benchCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, BENCH_MANUAL, context);
  if (parsed === undefined) return 0;
  judgeInOrder(parsed, allOptions);
  const { cache, isNative, row } = allOptions(parsed);
  const options = { ...row, writeThrough: cache.writeThrough };
  onlyName(parsed);
  const { kind, flushInterval } = options;
  if (kind === "read" && flushInterval > 0) {
    throw new UsageError("--flush-interval is only available in write tests", false);
  }
  if (flushInterval > 0 && flushInterval < options.depth) {
    throw new UsageError("Flush interval can't be smaller than depth", false);
  }
  const image = namedImage(parsed, await givenSecrets(parsed));
  const device = await open(image, { ...cache, isNative }, kind === "read", context);
  try {
    return await bench(device, options, context);
  } finally {
    await device.close();
  }
}

type Row = Required<Omit<BenchOptions, "writeThrough">>;

/** Fails for what is wrong with any option. */
function allOptions(parsed: ParsedArguments): {
  readonly cache: CacheMode;
  readonly isNative: boolean;
  readonly row: Row;
} {
  return { cache: cacheOption(parsed), isNative: asksForNative(parsed), row: benchOptions(parsed) };
}

function benchOptions(parsed: ParsedArguments): Row {
  const bytes = sizeOption(parsed, "bytes", "buffer size") ?? DEFAULT_BYTES;
  const step = sizeOption(parsed, "step", "step_size") ?? 0;
  const offset = lastValue(parsed, "offset");
  return {
    kind: isGiven(parsed, "write") ? "write" : "read",
    count: numberOption(parsed, "count", 0, MAX_NUMBER, "request count") ?? DEFAULT_COUNT,
    depth: numberOption(parsed, "depth", 1, MAX_NUMBER, "queue depth") ?? DEFAULT_DEPTH,
    bytes,
    step: step === 0 ? bytes : step,
    offset: offset === undefined ? 0 : sizeValue(offset, "offset"),
    pattern: numberOption(parsed, "pattern", 0, MAX_BYTE, "pattern byte") ?? 0,
    flushInterval: numberOption(parsed, "flush-interval", 0, MAX_NUMBER, "flush interval") ?? 0,
    noDrain: isGiven(parsed, "no-drain"),
  };
}

function numberOption(
  parsed: ParsedArguments,
  name: string,
  least: number,
  most: number,
  words: string,
): number | undefined {
  const text = lastValue(parsed, name);
  if (text === undefined) return undefined;
  // A leading zero means octal, as in C.
  const isOctal = /^\s*\+?0[0-7]+$/.test(text);
  const value = isOctal ? Number.parseInt(text, 8) : /^\s*\+?(\d+|0x[0-9a-f]+)$/i.test(text) ? Number(text) : -1;
  if (value >= least && value <= most) return value;
  throw new UsageError(`Invalid ${words} specified`, false);
}

function sizeOption(parsed: ParsedArguments, name: string, words: string): number | undefined {
  const text = lastValue(parsed, name);
  return text === undefined ? undefined : sizeValue(text, words, 0, MAX_NUMBER);
}

function cacheOption(parsed: ParsedArguments): CacheMode {
  const text = lastValue(parsed, "cache");
  const mode = text === undefined ? WRITE_BACK : cacheMode(text);
  if (mode === undefined) throw new UsageError("Invalid cache mode", false);
  return mode;
}

/** What was asked for once stays, as with the stock tool. */
function asksForNative(parsed: ParsedArguments): boolean {
  const modes = allValues(parsed, "aio");
  const unknown = modes.find((mode) => !AIO_MODES.includes(mode));
  if (unknown !== undefined) throw new UsageError(`Invalid aio option: ${unknown}`, false);
  return isGiven(parsed, "native") || modes.includes("native");
}

async function open(
  image: NamedImage,
  { isNative, ...cache }: CacheMode & { readonly isNative: boolean },
  readOnly: boolean,
  context: CommandContext,
): Promise<BlockDevice> {
  try {
    const device = await openForCommand({ ...image, readOnly, cache }, context);
    if (!isNative || cache.direct) return device;
    await device.close();
    throw nativeWithoutDirect(image.path);
  } catch (error) {
    throw withSubject(`Could not open '${image.name}'`, error);
  }
}

function nativeWithoutDirect(path: string): ZcowError {
  const stockText = "aio=native was specified, but it requires cache.direct=on, which was not specified.";
  return new ZcowError("INVALID_ARGUMENT", "aio=native needs a cache mode that bypasses the page cache (-t none)", {
    data: { path, option: "aio", value: "native" },
    stockText,
  });
}

async function bench(device: BlockDevice, options: Row & BenchOptions, context: CommandContext): Promise<number> {
  const { count, kind, bytes, depth, offset, step, flushInterval } = options;
  context.output.out(
    `Sending ${count} ${kind} requests, ${bytes} bytes each, ${depth} in parallel (starting at offset ${offset}, step size ${step})\n`,
  );
  if (flushInterval > 0) context.output.out(`Sending flush every ${flushInterval} requests\n`);
  try {
    const milliseconds = await benchDisk(device, options);
    context.output.out(`Run completed in ${(milliseconds / 1000).toFixed(3)} seconds.\n`);
    return 0;
  } catch (error) {
    const reason = context.standIn ? requestErrno(error) : explain(error, context);
    printError(context, `Failed request: ${reason}`);
    return EXIT_FAILURE;
  }
}

/** Requests past the end are an I/O error to the stock tool. */
function requestErrno(error: unknown): string {
  return error instanceof ZcowError && error.code !== "OUT_OF_RANGE" ? errnoText(error) : errnoText(undefined);
}
