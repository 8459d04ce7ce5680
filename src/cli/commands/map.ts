import { parseSize } from "../../base/size-text.js";
import { type MapEntry, mapImage } from "../../jobs/map.js";
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
import { EXIT_FAILURE, printError, withSubject } from "../failure.js";
import type { CommandManual } from "../manual.js";
import { namedImage, onlyName } from "../named-image.js";
import { openForCommand } from "../open.js";
import { judgeInOrder, lastValue, type ParsedArguments, saying } from "../options.js";
import { UsageError } from "../usage-error.js";

export const MAP_MANUAL: CommandManual = {
  name: "map",
  synopsis: ["[-f FORMAT] [--start-offset OFFSET] [--max-length LENGTH] [--output human|json] [-U] FILE"],
  about: ["Shows where the data of an image lies: as text the stored runs, as JSON every run of the disk."],
  options: [
    saying(FORMAT_OPTION, "qcow2, raw, vmdk, vhdx, vpc or vdi; recognised by content"),
    {
      name: "start-offset",
      short: "s",
      long: "start-offset",
      value: "OFFSET",
      about: "start here (bytes, with suffix k, M, G, ...)",
    },
    { name: "max-length", short: "l", long: "max-length", value: "LENGTH", about: "stop after so many bytes" },
    OUTPUT_OPTION,
    FORCE_SHARE_OPTION,
    OBJECT_OPTION,
    IMAGE_OPTS_OPTION,
    HELP_OPTION,
  ],
};

export async function mapCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, MAP_MANUAL, context);
  if (parsed === undefined) return 0;
  judgeInOrder(parsed, partOf);
  const { start, length } = partOf(parsed);
  onlyName(parsed);
  const form = outputForm(parsed, ["human", "json"]);
  const image = namedImage(parsed, await givenSecrets(parsed));
  const device = await openForCommand({ ...image, readOnly: true, cache: WRITE_BACK }, context).catch((error) => {
    throw withSubject(`Could not open '${image.name}'`, error);
  });
  try {
    if (form === "human") return await printTable(mapImage(device, start, length), context);
    await printJson(start, mapImage(device, start, length), context);
    return 0;
  } finally {
    await device.close();
  }
}

/** The part of the disk to show, bytes. */
function partOf(parsed: ParsedArguments): { readonly start: number; readonly length: number } {
  const start = sizeOption(parsed, "start-offset", "start offset") ?? 0;
  return { start, length: sizeOption(parsed, "max-length", "max length") ?? Number.MAX_SAFE_INTEGER - start };
}

function sizeOption(parsed: ParsedArguments, name: string, words: string): number | undefined {
  const text = lastValue(parsed, name);
  if (text === undefined) return undefined;
  const value = parseSize(text);
  if (value === undefined) {
    throw new UsageError(
      `Invalid ${words} specified. You may use k, M, G, T, P or E suffixes for\n` +
        "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.",
      false,
    );
  }
  return Math.min(value, Number.MAX_SAFE_INTEGER);
}

async function printTable(entries: AsyncIterable<MapEntry>, context: CommandContext): Promise<number> {
  context.output.out(row("Offset", "Length", "Mapped to", "File"));
  for await (const entry of entries) {
    if (!entry.data || entry.zero) continue;
    if (entry.offset === undefined) {
      printError(context, "File contains external, encrypted or compressed clusters.");
      return EXIT_FAILURE;
    }
    context.output.out(row(hexadecimal(entry.start), hexadecimal(entry.length), hexadecimal(entry.offset), entry.file));
  }
  return 0;
}

const COLUMN = 16;

function row(offset: string, length: string, mappedTo: string, file: string): string {
  return `${offset.padEnd(COLUMN)}${length.padEnd(COLUMN)}${mappedTo.padEnd(COLUMN)}${file}\n`;
}

/** Zero has no prefix, as the C library prints it. */
function hexadecimal(value: number): string {
  return value === 0 ? "0" : `0x${value.toString(16)}`;
}

async function printJson(start: number, entries: AsyncIterable<MapEntry>, context: CommandContext): Promise<void> {
  const pending: string[] = [];
  let separator = "[";
  for await (const entry of entries) {
    pending.push(separator, jsonLine(entry));
    separator = ",\n";
    if (pending.length >= LINES_PER_WRITE) context.output.out(pending.splice(0).join(""));
  }
  if (separator === "[") pending.push("[", jsonLine(nothingAt(start)));
  context.output.out(`${pending.join("")}]\n`);
}

const LINES_PER_WRITE = 4096;

/** What stands for an empty range. */
function nothingAt(start: number): MapEntry {
  return { start, length: 0, depth: 0, present: false, zero: false, data: false, offset: undefined, file: "" };
}

function jsonLine(entry: MapEntry): string {
  const offset = entry.offset === undefined ? "" : `, "offset": ${entry.offset}`;
  return (
    `{ "start": ${entry.start}, "length": ${entry.length}, "depth": ${entry.depth}, "present": ${entry.present}, ` +
    `"zero": ${entry.zero}, "data": ${entry.data}${offset}}`
  );
}
