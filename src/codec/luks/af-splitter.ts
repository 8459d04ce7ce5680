import { createHash, hash, randomFillSync } from "node:crypto";
import { viewOf } from "../../base/bytes.js";

/**
 * The anti-forensic splitter (LUKS On-Disk Format 1.2.3, section 2.4): a key is spread over many stripes, all of which are
 * needed to get it back, so that losing any of them on a disk destroys it.
 */

/** The key that `material`, `stripes` stripes of `keyBytes` bytes, holds. */
export function mergeStripes(material: Uint8Array, keyBytes: number, stripes: number, algorithm: string): Uint8Array {
  const sum = new Uint8Array(keyBytes);
  for (let stripe = 0; stripe < stripes - 1; stripe++) {
    xorInto(sum, material.subarray(stripe * keyBytes, (stripe + 1) * keyBytes));
    diffuse(sum, algorithm);
  }
  xorInto(sum, material.subarray((stripes - 1) * keyBytes, stripes * keyBytes));
  return sum;
}

/** Fills `material` with `key`, spread over `stripes` stripes: random ones, and the last so that they give the key. */
export function splitStripes(key: Uint8Array, material: Uint8Array, stripes: number, algorithm: string): void {
  const last = material.subarray((stripes - 1) * key.length, stripes * key.length);
  randomFillSync(material.subarray(0, (stripes - 1) * key.length));
  last.fill(0);
  const sum = mergeStripes(material, key.length, stripes, algorithm);
  last.set(key);
  xorInto(last, sum);
  sum.fill(0);
}

function xorInto(target: Uint8Array, other: Uint8Array): void {
  for (let i = 0; i < target.length; i++) target[i] = (target[i] as number) ^ (other[i] as number);
}

/** Replaces each piece of the length of a digest by the hash of its number and itself. */
function diffuse(bytes: Uint8Array, algorithm: string): void {
  const pieceLength = digestBytes(algorithm);
  for (let at = 0, piece = 0; at < bytes.length; at += pieceLength, piece++) {
    const rest = bytes.subarray(at, at + pieceLength);
    const numbered = new Uint8Array(4 + rest.length);
    viewOf(numbered).setUint32(0, piece);
    numbered.set(rest, 4);
    rest.set(hash(algorithm, numbered, "buffer").subarray(0, rest.length));
  }
}

const lengths = new Map<string, number>();

function digestBytes(algorithm: string): number {
  const known = lengths.get(algorithm);
  if (known !== undefined) return known;
  const { length } = createHash(algorithm).digest();
  lengths.set(algorithm, length);
  return length;
}
