/** Arithmetic on non-negative safe integers; bit operators would cut them to 32 bits. */

export function isPowerOfTwo(value: number): boolean {
  return (
    Number.isSafeInteger(value) &&
    value > 0 &&
    Number.isInteger(Math.log2(value)) &&
    2 ** Math.round(Math.log2(value)) === value
  );
}

/** `value` rounded down to a multiple of `unit` (any positive integer). */
export function alignDown(value: number, unit: number): number {
  return value - (value % unit);
}

/** `value` rounded up to a multiple of `unit` (any positive integer). */
export function alignUp(value: number, unit: number): number {
  const over = value % unit;
  return over === 0 ? value : value + (unit - over);
}

export function isAligned(value: number, unit: number): boolean {
  return value % unit === 0;
}

/** How many pieces of `unit` are needed to hold `value`. */
export function ceilDiv(value: number, unit: number): number {
  return Math.ceil(value / unit);
}
