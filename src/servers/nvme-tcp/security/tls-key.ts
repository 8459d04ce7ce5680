import { crc32 } from "node:zlib";
import { ZcowError } from "../../../base/errors.js";

/** A configured TLS key. Never printed: its text stays inside this file. */
export interface TlsKey {
  /** False: the key is used as it is, and not bound to the name of its host first. */
  readonly bound: boolean;
  /** 32 bytes. */
  readonly key: Uint8Array;
}

/** Bytes of a key by the two digits of its hash. */
const KEY_BYTES: Readonly<Record<string, readonly number[]>> = { "00": [32, 48], "01": [32], "02": [48] };
const SUPPORTED_BYTES = 32;
const CRC_BYTES = 4;
/** Longer than any valid text. */
const LONGEST_TEXT = 128;

/**
 * Reads `NVMeTLSkey-1:hh:base64(key, CRC-32 of the key):` (NVMe/TCP, "PSK Interchange Format").
 *
 * Fails with `INVALID_ARGUMENT`, and with `NOT_SUPPORTED` for 48-byte keys: they need a cipher suite that Node cannot serve
 * with keys agreed on beforehand. Messages say what is wrong and never repeat the text.
 */
export function parseTlsKey(text: string): TlsKey {
  const trimmed = text.trim();
  if (trimmed.length > LONGEST_TEXT) throw invalid(`is ${trimmed.length} characters long, at most ${LONGEST_TEXT}`);
  const [kind, hh = "", body = "", end, ...more] = trimmed.split(":");
  if (kind !== "NVMeTLSkey-1") throw invalid("does not start with 'NVMeTLSkey-1:'");
  if (end !== "" || more.length > 0)
    throw invalid("is not of the form NVMeTLSkey-1:hash:base64: (with the last colon)");
  const lengths = Object.hasOwn(KEY_BYTES, hh) ? KEY_BYTES[hh] : undefined;
  if (lengths === undefined) throw invalid("has a hash other than 00, 01 and 02");
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(body)) throw invalid("has a body that is not base64");
  const bytes = Uint8Array.from(Buffer.from(body, "base64"));
  const key = bytes.subarray(0, Math.max(0, bytes.length - CRC_BYTES));
  if (!lengths.includes(key.length)) {
    throw invalid(`holds a key of ${key.length} bytes; with hash ${hh} it must have ${lengths.join(" or ")}`);
  }
  const stored = new DataView(bytes.buffer, bytes.byteOffset + key.length, CRC_BYTES).getUint32(0, true);
  if (stored !== crc32(key)) throw invalid("has a wrong checksum: it was mistyped or cut");
  if (key.length !== SUPPORTED_BYTES) {
    throw new ZcowError(
      "NOT_SUPPORTED",
      `the TLS key has ${key.length} bytes; only 32-byte keys (SHA-256) can be served`,
      { data: { structure: "TLS key", value: key.length, limit: SUPPORTED_BYTES } },
    );
  }
  return { bound: hh !== "00", key };
}

function invalid(why: string): ZcowError {
  return new ZcowError("INVALID_ARGUMENT", `the TLS key ${why}`, { data: { structure: "TLS key" } });
}
