import { isAligned } from "../../base/integers.js";
import { SECTOR_SIZE } from "../../base/units.js";
import { BadArguments } from "./command.js";
import { patternByte } from "./numbers.js";

type Options = ReadonlyMap<string, string>;

/** The options about printing, which all transfers share. */
export function printingOptions(options: Options): { quiet: boolean; machine: boolean } {
  return { quiet: options.has("q"), machine: options.has("C") };
}

/** The byte given with -P. */
export function patternOption(options: Options): number | undefined {
  const text = options.get("P");
  return text === undefined ? undefined : patternByte(text);
}

/** Requests that bypass the block layer come in whole sectors. */
export function requireSectors(offset: number, length: number): void {
  if (!isAligned(offset, SECTOR_SIZE)) {
    throw new BadArguments(`${offset} is not a sector-aligned value for 'offset'\n`);
  }
  if (!isAligned(length, SECTOR_SIZE)) {
    throw new BadArguments(`${length} is not a sector-aligned value for 'count'\n`);
  }
}
