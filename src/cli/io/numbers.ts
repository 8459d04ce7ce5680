import { parseSize } from "../../base/size-text.js";
import { BadArguments } from "./command.js";

/** Largest number that the commands take, as in qemu-io: 2^63 - 1. */
const LARGEST = 2 ** 63;
/** Longest single transfer: 2^31 - 512 bytes. */
const LONGEST_TRANSFER = 2 ** 31 - 512;

/** A number of bytes, with suffix; throws {@link BadArguments}. */
export function byteNumber(text: string | undefined): number {
  if (text === undefined) throw new BadArguments();
  const value = parseSize(text);
  if (value === undefined) {
    throw new BadArguments(`Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- ${text}\n`);
  }
  const isTooLarge = value > LARGEST || (value === LARGEST && !isBelowLargest(text));
  if (isTooLarge) throw new BadArguments(`Parsing error: argument too large -- ${text}\n`);
  return value;
}

/** Numbers just below the limit are the limit when they are rounded. */
function isBelowLargest(text: string): boolean {
  return /^\d+$/.test(text) && BigInt(text) < 2n ** 63n;
}

/** A length that fits one transfer. `unless` is added to the complaint. */
export function transferLength(text: string | undefined, unless = ""): number {
  const value = byteNumber(text);
  if (value > LONGEST_TRANSFER) {
    throw new BadArguments(`length cannot exceed ${LONGEST_TRANSFER}${unless}, given ${text}\n`);
  }
  return value;
}

/** The sum of the lengths of one transfer in several pieces. */
export function piecesLength(texts: readonly string[]): number {
  let total = 0;
  for (const text of texts) {
    const length = byteNumber(text);
    if (length > LONGEST_TRANSFER) {
      throw new BadArguments(`Argument '${text}' exceeds maximum size ${LONGEST_TRANSFER}\n`);
    }
    total += length;
    if (total > LONGEST_TRANSFER) {
      throw new BadArguments(`The total number of bytes exceed the maximum size ${LONGEST_TRANSFER}\n`);
    }
  }
  return total;
}

/** A byte value: decimal, hexadecimal with 0x, or octal with a leading 0. */
export function patternByte(text: string): number {
  const value = /^0[0-7]+$/.test(text)
    ? Number.parseInt(text, 8)
    : /^(0x[0-9a-f]+|\d+)$/i.test(text)
      ? Number(text)
      : -1;
  if (value < 0 || value > 255) throw new BadArguments(`${text} is not a valid pattern byte\n`);
  return value;
}
