/** Sizes as people write them ("64k", "1.5G", "0x200") and as programs show them ("64 KiB"). */

const UNIT_LETTERS = "BKMGTPE";
const DECIMAL = /^\s*\+?(\d+)(\.\d*)?([bkmgtpe])?$/i;
const HEXADECIMAL = /^\s*\+?0x([0-9a-f]+)([kmgtp])?$/i;

/**
 * Bytes meant by `text`: digits with an optional fraction and an optional suffix b, k, M, G, T, P or E (powers of
 * 1024, either case), or a hexadecimal number. `undefined` when it is not a size, or is a fraction of a byte.
 * The result may be above 2^53 - 1, where it is no longer exact: compare it with a limit before use.
 */
export function parseSize(text: string): number | undefined {
  const hex = HEXADECIMAL.exec(text);
  if (hex !== null) return Number.parseInt(hex[1] ?? "", 16) * unitOf(hex[2]);
  const match = DECIMAL.exec(text);
  if (match === null) return undefined;
  const unit = unitOf(match[3]);
  const fraction = match[2] === undefined || match[2] === "." ? 0 : Number(`0${match[2]}`);
  if (fraction !== 0 && unit === 1) return undefined;
  return Number(match[1]) * unit + Math.floor(fraction * unit + 0.5);
}

function unitOf(letter: string | undefined): number {
  return 1024 ** Math.max(0, UNIT_LETTERS.indexOf((letter ?? "B").toUpperCase()));
}

/** `bytes` with three significant digits and a binary unit: 67108864 is "64 MiB", 1000 is "0.977 KiB". */
export function formatSize(bytes: number): string {
  let power = 0;
  // The next unit starts at 1000, not at 1024, so that three digits are enough.
  while (power < UNIT_LETTERS.length - 1 && bytes / 1024 ** power >= 1000) power += 1;
  const value = bytes / 1024 ** power;
  const places = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  const digits = Number(fixedPoint(value, value < 1 ? 3 : places));
  return `${digits} ${power === 0 ? "B" : `${UNIT_LETTERS[power]}iB`}`;
}

/**
 * `value` (not negative) with `places` decimals, as the C library prints it: a tie goes to the even digit, where
 * `toFixed` goes up.
 */
export function fixedPoint(value: number, places: number): string {
  const scaled = value * 10 ** places;
  const below = Math.floor(scaled);
  const tieToEvenBelow = scaled - below === 0.5 && below % 2 === 0;
  return (tieToEvenBelow ? below / 10 ** places : value).toFixed(places);
}
