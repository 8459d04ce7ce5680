import { readFileSync } from "node:fs";
import { SECTOR_SIZE } from "../../base/units.js";
import { commandArguments } from "../command-arguments.js";
import {
  FORMAT_OPTION,
  givenSecrets,
  HELP_OPTION,
  IMAGE_OPTS_OPTION,
  OBJECT_OPTION,
  OUTPUT_OPTION,
  outputForm,
} from "../common-options.js";
import type { CommandContext } from "../context.js";
import { jsonText } from "../json.js";
import type { CommandManual } from "../manual.js";
import { namedImage } from "../named-image.js";
import { lastValue, type ParsedArguments, saying } from "../options.js";
import { UsageError } from "../usage-error.js";
import { bytesArgument, countArgument, withZonedImage } from "../zone-image.js";

export const ZONE_APPEND_MANUAL: CommandManual = {
  name: "zone append",
  synopsis: ["[-f FORMAT] FILE OFFSET (-i INPUT | -l LENGTH [-P BYTE])"],
  about: [
    "Writes at the write pointer of the zone that starts at OFFSET, all in one piece, and shows where it went. Durable when the command ends.",
  ],
  options: [
    {
      name: "input",
      short: "i",
      long: "input",
      value: "FILE",
      about: "write the bytes of this file; - for standard input",
    },
    { name: "length", short: "l", long: "length", value: "LENGTH", about: "write so many bytes of the pattern" },
    { name: "pattern", short: "P", long: "pattern", value: "BYTE", about: "the pattern, 0 to 255 (default 0xcd)" },
    OUTPUT_OPTION,
    saying(FORMAT_OPTION, "qcow2; recognised by content when left out"),
    OBJECT_OPTION,
    IMAGE_OPTS_OPTION,
    HELP_OPTION,
  ],
};

/** Longest append that is held in memory. */
const LONGEST = 2 ** 31 - SECTOR_SIZE;

export async function zoneAppendCommand(args: readonly string[], context: CommandContext): Promise<number> {
  const parsed = commandArguments(args, ZONE_APPEND_MANUAL, context);
  if (parsed === undefined) return 0;
  const form = outputForm(parsed, ["human", "json"]);
  const [path, zone, ...more] = parsed.positionals;
  if (path === undefined || zone === undefined || more.length > 0) {
    throw new UsageError("Expecting an image file name and the offset of a zone");
  }
  const zoneStart = bytesArgument("offset", zone);
  const bytes = chosenBytes(parsed);
  const named = namedImage({ ...parsed, positionals: [path] }, await givenSecrets(parsed));
  const image = { ...named, forceShare: false, readOnly: false };
  await withZonedImage(image, context, async (device) => {
    const offset = await device.append(zoneStart, bytes, { fua: true });
    context.output.out(
      form === "json"
        ? jsonText({ offset, length: bytes.length })
        : `appended ${bytes.length} bytes at offset ${offset} (sector 0x${(offset / SECTOR_SIZE).toString(16)})\n`,
    );
  });
  return 0;
}

function chosenBytes(parsed: ParsedArguments): Uint8Array {
  const input = lastValue(parsed, "input");
  const length = lastValue(parsed, "length");
  if ((input === undefined) === (length === undefined)) throw new UsageError("Expecting one of --input and --length");
  if (input !== undefined) return readInput(input);
  const count = bytesArgument("length", length ?? "");
  if (count > LONGEST) throw new UsageError(`length ${count} is above ${LONGEST}, the longest append`, false);
  return new Uint8Array(count).fill(patternByte(lastValue(parsed, "pattern") ?? "0xcd"));
}

function readInput(path: string): Uint8Array {
  const STDIN = 0;
  try {
    return readFileSync(path === "-" ? STDIN : path);
  } catch (error) {
    throw new UsageError(`cannot read ${path}: ${error instanceof Error ? error.message : String(error)}`, false);
  }
}

function patternByte(text: string): number {
  const value = /^0x[0-9a-f]+$/i.test(text) ? Number(text) : countArgument("pattern", text);
  if (value <= 0xff) return value;
  throw new UsageError(`pattern '${text}' is not a byte, 0 to 255`, false);
}
