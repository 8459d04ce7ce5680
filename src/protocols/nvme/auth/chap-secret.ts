/** Secrets of DH-HMAC-CHAP in their text form, `DHHC-1:hh:base64 of key and CRC-32:` (NVMe base, "DH-HMAC-CHAP secret representation"). */
import { ZcowError } from "../../../base/errors.js";
import type { ChapCrypto, ChapHash } from "./chap-crypto.js";

export interface ChapSecret {
  readonly key: Uint8Array;
  /** The hash by which the key is bound to the name of its owner; undefined: it is used as it is. */
  readonly transform: ChapHash | undefined;
}

const FORM = /^DHHC-1:(0[0-3]):([A-Za-z0-9+/]+={0,2}):$/;
const TRANSFORMS: readonly (ChapHash | undefined)[] = [undefined, "sha256", "sha384", "sha512"];
const KEY_LENGTHS: readonly number[] = [32, 48, 64];
const CHECKSUM_LENGTH = 4;

/** Throws `INVALID_ARGUMENT` for text of another form, key length or checksum. The message never shows the text. */
export function parseChapSecret(text: string): ChapSecret {
  const match = FORM.exec(text.trim());
  if (match === null) throw invalid("is not of the form DHHC-1:hh:base64:");
  const bytes = decode(match[2] ?? "");
  const key = bytes.slice(0, -CHECKSUM_LENGTH);
  if (!KEY_LENGTHS.includes(key.length)) throw invalid(`has a key of ${key.length} bytes; 32, 48 and 64 are allowed`);
  const stored = new DataView(bytes.buffer).getUint32(key.length, true);
  if (stored !== crc32(key)) throw invalid("has a wrong checksum");
  return { key, transform: TRANSFORMS[Number(match[1])] };
}

/** The key that responses are made with: bound to the NQN of the side that it belongs to. */
export function transformedKey(crypto: ChapCrypto, secret: ChapSecret, nqn: string): Uint8Array {
  if (secret.transform === undefined) return secret.key;
  return crypto.hmac(secret.transform, secret.key, new TextEncoder().encode(`${nqn}NVMe-over-Fabrics`));
}

function decode(base64: string): Uint8Array<ArrayBuffer> {
  try {
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  } catch {
    throw invalid("is not base64");
  }
}

/** The CRC-32 of Ethernet and zip; keys are short, so a bit at a time will do. */
export function crc32(bytes: Uint8Array): number {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1));
  }
  return ~crc >>> 0;
}

function invalid(why: string): ZcowError {
  return new ZcowError("INVALID_ARGUMENT", `The DH-HMAC-CHAP secret ${why}`, { data: { field: "secret" } });
}
