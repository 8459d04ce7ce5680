/** NVMe Qualified Names (NVMe base, "NVMe Qualified Names"). */
import { ZcowError } from "../../base/errors.js";

export const DISCOVERY_NQN = "nqn.2014-08.org.nvmexpress.discovery";

/** Bytes of the longest name. */
const NQN_LENGTH_MAX = 223;
/** Bytes of the field that holds a name with its zero. */
export const NQN_FIELD_LENGTH = 256;

const decoder = new TextDecoder("utf-8", { fatal: true });
const encoder = new TextEncoder();

/** The name in a field of 256 bytes; `undefined` when it is no name: too short, too long, not UTF-8, without a zero. */
export function parseNqn(field: Uint8Array): string | undefined {
  const length = field.indexOf(0);
  if (length <= 0 || length > NQN_LENGTH_MAX) return undefined;
  try {
    const name = decoder.decode(field.subarray(0, length));
    return name.startsWith("nqn.") ? name : undefined;
  } catch {
    return undefined;
  }
}

/** Writes a name, or any other text, into a field of zeros. */
export function putText(into: Uint8Array, at: number, fieldLength: number, text: string): void {
  into.set(encoder.encode(text).subarray(0, fieldLength), at);
}

/** Writes ASCII text padded with spaces. */
export function putPadded(into: Uint8Array, at: number, fieldLength: number, text: string): void {
  into.fill(0x20, at, at + fieldLength);
  putText(into, at, fieldLength, text);
}

/** Throws `INVALID_ARGUMENT` for text that is not an NQN. */
export function requireNqn(text: string, what: string): void {
  const length = encoder.encode(text).length;
  if (text.startsWith("nqn.") && length <= NQN_LENGTH_MAX && !text.includes("\0")) return;
  throw new ZcowError(
    "INVALID_ARGUMENT",
    `${what} "${text.slice(0, NQN_FIELD_LENGTH)}" must start with "nqn." and have at most ${NQN_LENGTH_MAX} bytes`,
    { data: { field: what, limit: NQN_LENGTH_MAX } },
  );
}
