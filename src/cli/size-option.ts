import { parseSize } from "../base/size-text.js";
import { UsageError } from "./usage-error.js";

/** 2^63 - 1, the largest size that the stock tools can name. */
const LARGEST = "9223372036854775807";
const TWO_63 = 2 ** 63;

/**
 * Bytes meant by the value of an option, from `least` to `most`; `words` name it. Throws a usage error in the words of the stock tools.
 * Without `most` the result may be above 2^53 - 1, where it is not exact.
 */
export function sizeValue(text: string, words: string, least = 0, most?: number): number {
  const value = parseSize(text);
  if (value === undefined) {
    throw new UsageError(
      `Invalid ${words} specified. You may use k, M, G, T, P or E suffixes for\n` +
        "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.",
      false,
    );
  }
  const isInside = value >= least && (most === undefined ? value < TWO_63 || isLargest(text) : value <= most);
  if (isInside) return value;
  throw new UsageError(`Invalid ${words} specified. Must be between ${least} and ${most ?? LARGEST}.`, false);
}

/** As a number it is no longer told from 2^63. */
function isLargest(text: string): boolean {
  return text.trim().replace(/^\+/, "") === LARGEST;
}
