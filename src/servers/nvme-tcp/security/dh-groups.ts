import { createDiffieHellman, type DiffieHellman, randomBytes } from "node:crypto";
import type { ChapGroup } from "../../../protocols/nvme/auth/chap-crypto.js";

/** A group in which something is exchanged. */
type DhGroup = Exclude<ChapGroup, "null">;

interface GroupNumbers {
  readonly bits: number;
  /** The X of RFC 7919, appendix A. */
  readonly x: number;
  /** Bits of the private exponent: RFC 7919, section 5.2, rounded up; short ones keep the cost small. */
  readonly exponentBits: number;
}

const GROUPS: Readonly<Record<DhGroup, GroupNumbers>> = {
  ffdhe2048: { bits: 2048, x: 560316, exponentBits: 256 },
  ffdhe3072: { bits: 3072, x: 2625351, exponentBits: 288 },
  ffdhe4096: { bits: 4096, x: 5736041, exponentBits: 336 },
  ffdhe6144: { bits: 6144, x: 15705020, exponentBits: 384 },
  ffdhe8192: { bits: 8192, x: 10965728, exponentBits: 416 },
};

const primes = new Map<DhGroup, Uint8Array>();

/** Guard bits that keep the rounding of the series away from the digits used. */
const GUARD_BITS = 64n;

/** floor(2^bits * e), from the series of 1/k!. */
function scaledE(bits: number): bigint {
  let term = 1n << (BigInt(bits) + GUARD_BITS);
  let sum = 0n;
  for (let k = 1n; term > 0n; k++) {
    sum += term;
    term /= k;
  }
  return sum >> GUARD_BITS;
}

/** The prime of a group, big-endian: p = 2^b - 2^(b-64) + (floor(2^(b-130) e) + X) 2^64 - 1 (RFC 7919, appendix A). */
export function dhPrime(group: DhGroup): Uint8Array {
  const known = primes.get(group);
  if (known !== undefined) return known;
  const { bits, x } = GROUPS[group];
  const b = BigInt(bits);
  const prime = (1n << b) - (1n << (b - 64n)) + ((scaledE(bits - 130) + BigInt(x)) << 64n) - 1n;
  const bytes = Uint8Array.from(Buffer.from(prime.toString(16), "hex"));
  primes.set(group, bytes);
  return bytes;
}

/** One side of an exchange. */
export class DhExchange {
  /** Big-endian, as long as the prime. */
  readonly publicValue: Uint8Array;
  readonly #dh: DiffieHellman;
  readonly #bytes: number;

  constructor(group: DhGroup) {
    const prime = dhPrime(group);
    this.#bytes = prime.length;
    this.#dh = createDiffieHellman(prime, Uint8Array.of(2));
    this.#dh.setPrivateKey(randomBytes(GROUPS[group].exponentBits / 8));
    this.publicValue = leftPadded(this.#dh.generateKeys(), this.#bytes);
  }

  /** The shared secret, as long as the prime. Throws when the peer's value is not in 2..p-2 or has another length. */
  sharedSecret(peerValue: Uint8Array): Uint8Array {
    if (peerValue.length !== this.#bytes) {
      throw new RangeError(`a public value of ${peerValue.length} bytes for a prime of ${this.#bytes}`);
    }
    return leftPadded(this.#dh.computeSecret(peerValue), this.#bytes);
  }
}

function leftPadded(value: Uint8Array, length: number): Uint8Array {
  const padded = new Uint8Array(length);
  padded.set(value, length - value.length);
  return padded;
}
