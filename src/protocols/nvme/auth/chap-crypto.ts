/** What DH-HMAC-CHAP needs of cryptography, so that the protocol depends on no implementation of it. */
import type { MaybePromise } from "../../../base/maybe-promise.js";

/** Hash functions of DH-HMAC-CHAP. */
export type ChapHash = "sha256" | "sha384" | "sha512";

/** Diffie-Hellman groups; `null` exchanges no values. The others are those of RFC 7919. */
export type ChapGroup = "null" | "ffdhe2048" | "ffdhe3072" | "ffdhe4096" | "ffdhe6144" | "ffdhe8192";

/** Numbers of the hashes in messages (NVMe base, "DH-HMAC-CHAP hash function identifiers"), and lengths of digests. */
export const HASHES: Readonly<Record<ChapHash, { readonly id: number; readonly length: number }>> = {
  sha256: { id: 1, length: 32 },
  sha384: { id: 2, length: 48 },
  sha512: { id: 3, length: 64 },
};

/** Numbers of the groups in messages, and bytes of their values. */
export const GROUPS: Readonly<Record<ChapGroup, { readonly id: number; readonly length: number }>> = {
  null: { id: 0, length: 0 },
  ffdhe2048: { id: 1, length: 256 },
  ffdhe3072: { id: 2, length: 384 },
  ffdhe4096: { id: 3, length: 512 },
  ffdhe6144: { id: 4, length: 768 },
  ffdhe8192: { id: 5, length: 1024 },
};

/** One side's ephemeral key. */
export interface ChapKeyPair {
  /** Big-endian, at most the length of the group. */
  readonly publicValue: Uint8Array;
  /** The shared secret, big-endian. Fails for a value that is none of the group's: 0, 1, p - 1 and above. */
  secretWith(peerValue: Uint8Array): MaybePromise<Uint8Array>;
}

export interface ChapCrypto {
  digest(hash: ChapHash, data: Uint8Array): Uint8Array;
  hmac(hash: ChapHash, key: Uint8Array, data: Uint8Array): Uint8Array;
  randomBytes(length: number): Uint8Array;
  /** Takes the same time wherever the difference is. */
  equal(a: Uint8Array, b: Uint8Array): boolean;
  generateKeyPair(group: Exclude<ChapGroup, "null">): MaybePromise<ChapKeyPair>;
}
