import { crc32 } from "node:zlib";
import { ZcowError } from "../../../base/errors.js";

/** The hash that a secret is transformed with before use; `none`: it is used as it is. */
export type SecretHash = "none" | "sha256" | "sha384" | "sha512";

/** A secret as administrators pass it around. Never printed: its text stays inside this folder. */
export interface Secret {
  readonly hash: SecretHash;
  readonly key: Uint8Array;
}

/** What a secret is for: the first word of its text form. */
export type SecretKind = "DHHC-1" | "NVMeTLSkey-1";

const HASHES: Readonly<Record<string, SecretHash>> = { "00": "none", "01": "sha256", "02": "sha384", "03": "sha512" };
/** Bytes of a key by its hash. Keys without a hash may have any of these lengths. */
const KEY_BYTES: Readonly<Record<SecretHash, readonly number[]>> = {
  none: [32, 48, 64],
  sha256: [32],
  sha384: [48],
  sha512: [64],
};
const CRC_BYTES = 4;
/** Longer than any valid text: kind, hash and the base64 of 68 bytes. */
const LONGEST_TEXT = 128;

/**
 * Reads `kind:hh:base64(key, CRC-32 of the key):`, the form of NVMe secrets (NVMe base specification, "DH-HMAC-CHAP
 * Protocol", secret representation; NVMe/TCP, "PSK Interchange Format").
 *
 * Fails with `INVALID_ARGUMENT`; messages say what is wrong and never repeat the text.
 */
export function parseSecret(text: string, kind: SecretKind): Secret {
  const trimmed = text.trim();
  if (trimmed.length > LONGEST_TEXT) throw bad(kind, `is ${trimmed.length} characters long, at most ${LONGEST_TEXT}`);
  const [name, hh = "", body = "", end, ...more] = trimmed.split(":");
  if (name !== kind) throw bad(kind, `does not start with '${kind}:'`);
  if (end !== "" || more.length > 0) throw bad(kind, "is not of the form kind:hash:base64: (with the last colon)");
  const hash = HASHES[hh];
  if (hash === undefined) throw bad(kind, "has a hash other than 00, 01, 02 and 03");
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(body)) throw bad(kind, "has a body that is not base64");
  const bytes = Uint8Array.from(Buffer.from(body, "base64"));
  const key = bytes.subarray(0, Math.max(0, bytes.length - CRC_BYTES));
  if (!KEY_BYTES[hash].includes(key.length)) {
    throw bad(kind, `holds a key of ${key.length} bytes; for hash ${hh} it must have ${KEY_BYTES[hash].join(", ")}`);
  }
  const stored = new DataView(bytes.buffer, bytes.byteOffset + key.length, CRC_BYTES).getUint32(0, true);
  if (stored !== crc32(key)) throw bad(kind, "has a wrong checksum: it was mistyped or cut");
  return { hash, key };
}

function bad(kind: SecretKind, why: string): ZcowError {
  return new ZcowError("INVALID_ARGUMENT", `the ${kind} secret ${why}`, { data: { structure: `${kind} secret` } });
}
