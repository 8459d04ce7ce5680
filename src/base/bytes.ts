import { ZcowError } from "./errors.js";

const TWO_32 = 0x1_0000_0000;

/** A view on exactly the bytes of `bytes`. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * Unsigned 64-bit integer at `at` as a safe integer, from two 32-bit halves (five times faster than
 * `getBigUint64`). Throws `IMAGE_CORRUPT` above 2^53 - 1: no valid offset or size is that large here.
 * Read flag words with `DataView.getBigUint64` instead.
 */
export function readU64(view: DataView, at: number, field: string, littleEndian = false): number {
  const first = view.getUint32(at, littleEndian);
  const second = view.getUint32(at + 4, littleEndian);
  const high = littleEndian ? second : first;
  const low = littleEndian ? first : second;
  if (high > 0x1f_ffff) {
    const value = view.getBigUint64(at, littleEndian);
    throw new ZcowError(
      "IMAGE_CORRUPT",
      `${field} is 0x${value.toString(16)}, above the largest supported value 2^53-1`,
      {
        data: { field, value, limit: Number.MAX_SAFE_INTEGER },
      },
    );
  }
  return high * TWO_32 + low;
}

/** Writes a safe integer as unsigned 64-bit, big-endian unless told. */
export function writeU64(view: DataView, at: number, value: number, littleEndian = false): void {
  const high = Math.floor(value / TWO_32);
  const low = value % TWO_32;
  view.setUint32(at, littleEndian ? low : high, littleEndian);
  view.setUint32(at + 4, littleEndian ? high : low, littleEndian);
}
