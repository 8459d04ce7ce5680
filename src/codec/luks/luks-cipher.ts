import { createHash } from "node:crypto";
import { ZcowError } from "../../base/errors.js";
import { AesCbc } from "../cipher/aes-cbc.js";
import { AesXts } from "../cipher/aes-xts.js";
import type { SectorCipher } from "../cipher/sector-cipher.js";
import { essivIv, type IvGenerator, plain64Iv, plainIv } from "../cipher/sector-iv.js";
import type { LuksHeader } from "./luks-header.js";

export const LUKS_HASHES = ["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160"] as const;
export const LUKS_CIPHER_MODES = ["cbc", "xts"] as const;
export const LUKS_IV_GENERATORS = ["plain", "plain64", "essiv"] as const;
/** By name, the bytes of the AES key. */
export const LUKS_CIPHERS = { "aes-128": 16, "aes-192": 24, "aes-256": 32 } as const;

export type LuksHash = (typeof LUKS_HASHES)[number];
export type LuksCipherMode = (typeof LUKS_CIPHER_MODES)[number];
export type LuksIvGenerator = (typeof LUKS_IV_GENERATORS)[number];
export type LuksCipherAlgorithm = keyof typeof LUKS_CIPHERS;

/** How a volume is encrypted, in words: what the header stores in `cipher-name`, `cipher-mode`, `key-bytes` and `hash-spec`. */
export interface LuksCipherSpec {
  readonly algorithm: LuksCipherAlgorithm;
  readonly mode: LuksCipherMode;
  readonly iv: LuksIvGenerator;
  /** Hash of the `essiv` generator; the others keep one without using it. */
  readonly ivHash: LuksHash | undefined;
  readonly hash: LuksHash;
}

/** Bytes of the volume key: XTS has a second key for the tweaks. */
export function volumeKeyBytes({ algorithm, mode }: Pick<LuksCipherSpec, "algorithm" | "mode">): number {
  return LUKS_CIPHERS[algorithm] * (mode === "xts" ? 2 : 1);
}

/** `cipher-mode` of the header: "cbc-essiv:sha256". */
export function cipherModeText({ mode, iv, ivHash }: LuksCipherSpec): string {
  return `${mode}-${iv}${ivHash === undefined ? "" : `:${ivHash}`}`;
}

/** What a header says about its cipher; `LUKS_CIPHER` names what is not supported. */
export function cipherSpecOf({ cipherName, cipherMode, hash, keyBytes }: LuksHeader): LuksCipherSpec {
  if (cipherName !== "aes") throw unsupported("cipher-name", cipherName, "the cipher", "aes");
  const parts = /^([^-]+)-([^:]+)(?::(.*))?$/.exec(cipherMode);
  if (parts === null) {
    const stockText = `Unexpected cipher mode string format '${cipherMode}'`;
    throw unsupported("cipher-mode", cipherMode, "the cipher mode", "MODE-IV[:HASH]", stockText);
  }
  const mode = known(LUKS_CIPHER_MODES, "cipher-mode", parts[1] as string, "the cipher mode");
  const iv = known(LUKS_IV_GENERATORS, "cipher-mode", parts[2] as string, "the IV generator");
  const ivHash =
    parts[3] === undefined ? undefined : known(LUKS_HASHES, "cipher-mode", parts[3], "the hash of the IVs");
  if (iv === "essiv") checkEssivHash(ivHash);
  const names = Object.keys(LUKS_CIPHERS) as LuksCipherAlgorithm[];
  const algorithm = names.find((name) => volumeKeyBytes({ algorithm: name, mode }) === keyBytes);
  if (algorithm === undefined) {
    const stockText = `No aes cipher with key size ${keyBytes} available`;
    throw unsupported(
      "key-bytes",
      String(keyBytes),
      `a key of these bytes for aes in mode ${mode}`,
      "16, 24, 32, twice that for xts",
      stockText,
    );
  }
  return { algorithm, mode, iv, ivHash, hash: known(LUKS_HASHES, "hash-spec", hash, "the hash") };
}

/** The hash of ESSIV gives an AES key: 16, 24 or 32 bytes. `LUKS_CIPHER` otherwise. */
export function checkEssivHash(hash: LuksHash | undefined): asserts hash is LuksHash {
  if (hash === undefined) {
    throw unsupported(
      "cipher-mode",
      "essiv",
      "an essiv generator without a hash",
      "essiv:HASH",
      "Missing IV generator hash specification",
    );
  }
  const { length } = createHash(hash).digest();
  if (length === 16 || length === 24 || length === 32) return;
  const stockText = `No AES cipher with key size ${length} available`;
  throw unsupported("cipher-mode", `essiv:${hash}`, `an IV hash of ${length} bytes`, "16, 24 or 32 bytes", stockText);
}

/** The cipher of a volume, or of the material of a key slot, with its key. */
export function luksCipher(spec: LuksCipherSpec, key: Uint8Array): SectorCipher {
  const iv = ivGenerator(spec, key);
  return spec.mode === "xts" ? new AesXts(key, iv) : new AesCbc(key, iv);
}

function ivGenerator({ iv, ivHash }: LuksCipherSpec, key: Uint8Array): IvGenerator {
  if (iv === "plain") return plainIv();
  if (iv === "plain64") return plain64Iv();
  checkEssivHash(ivHash);
  return essivIv(key, ivHash);
}

function known<T extends string>(choices: readonly T[], field: string, value: string, what: string): T {
  const found = choices.find((choice) => choice === value);
  if (found !== undefined) return found;
  throw unsupported(field, value, what, choices.join(", "));
}

function unsupported(field: string, value: string, what: string, limit: string, stockText?: string): ZcowError {
  return new ZcowError(
    "LUKS_CIPHER",
    `LUKS header: ${field} '${value}': ${what} is not supported (supported: ${limit})`,
    {
      data: { structure: "LUKS header", field, value, limit },
      ...(stockText === undefined ? {} : { stockText }),
    },
  );
}
