import { AesBlocks, BLOCK_BYTES } from "./aes-blocks.js";
import { CIPHER_SECTOR_BYTES, type SectorCipher } from "./sector-cipher.js";
import type { IvGenerator } from "./sector-iv.js";
import { bytesOf, LITTLE_ENDIAN, swapWords, wordsOf } from "./words.js";

/** Bytes worked on at a time: input, tweaks and output stay in the processor's cache. */
const CHUNK_BYTES = 65_536;
const BLOCK_WORDS = BLOCK_BYTES / 4;
const SECTOR_WORDS = CIPHER_SECTOR_BYTES / 4;
/** The polynomial that multiplication by x is reduced with (IEEE 1619, 5.2). */
const POLYNOMIAL = 0x87;

/** Shared by all ciphers: each call is over before another begins. */
const tweaks = new Uint32Array(CHUNK_BYTES / 4);
const mixed = new Uint32Array(CHUNK_BYTES / 4);
const mixedBytes = new Uint8Array(mixed.buffer);

/**
 * AES-XTS (IEEE 1619) by sectors of 512 bytes. Made of AES on single blocks, many sectors in one call, and the chain of
 * tweaks in here: a cipher object per sector, which the runtime's own XTS would take, is more than ten times slower.
 */
export class AesXts implements SectorCipher {
  readonly #encryption: AesBlocks;
  readonly #decryption: AesBlocks;
  readonly #tweaking: AesBlocks;
  readonly #iv: IvGenerator;

  /** `key`: two AES keys of the same length, for data and for tweaks. */
  constructor(key: Uint8Array, iv: IvGenerator) {
    const half = key.length / 2;
    this.#encryption = new AesBlocks(key.subarray(0, half), "encrypt");
    this.#decryption = new AesBlocks(key.subarray(0, half), "decrypt");
    this.#tweaking = new AesBlocks(key.subarray(half), "encrypt");
    this.#iv = iv;
  }

  encrypt(sector: number, from: Uint8Array): Uint8Array {
    const words = wordsOf(from);
    // The buffer that small requests are encrypted into is new already; a second one would cost a fifth of their time.
    if (from.length <= CHUNK_BYTES) return bytesOf(this.#chunk(this.#encryption, sector, words, 0, words.length));
    const result = new Uint32Array(words.length);
    this.#transform(this.#encryption, sector, words, result);
    return bytesOf(result);
  }

  decrypt(sector: number, bytes: Uint8Array): void {
    const words = wordsOf(bytes);
    this.#transform(this.#decryption, sector, words, words);
    if (words.buffer !== bytes.buffer) bytes.set(new Uint8Array(words.buffer));
  }

  #transform(blocks: AesBlocks, sector: number, from: Uint32Array, into: Uint32Array): void {
    for (let at = 0; at < from.length; at += CHUNK_BYTES / 4) {
      const words = Math.min(CHUNK_BYTES / 4, from.length - at);
      into.set(this.#chunk(blocks, sector + at / SECTOR_WORDS, from, at, words), at);
    }
  }

  /** The sectors in `words` words of `from`, the first at `start` with number `sector`, transformed, in a new buffer. */
  #chunk(blocks: AesBlocks, sector: number, from: Uint32Array, start: number, words: number): Uint32Array {
    this.#mix(sector, from, start, words);
    const result = wordsOf(blocks.update(mixedBytes.subarray(0, words * 4)));
    for (let i = 0; i < words; i++) result[i] = (result[i] as number) ^ (tweaks[i] as number);
    return result;
  }

  /** Fills `tweaks`: for each sector the encrypted IV, then for each block the one before times x. And `mixed` with `from` XOR these. */
  #mix(sector: number, from: Uint32Array, start: number, words: number): void {
    const first = wordsOf(this.#tweaking.update(this.#iv(sector, words / SECTOR_WORDS)));
    if (!LITTLE_ENDIAN) swapWords(first, first.length);
    for (let i = 0, at = 0; at < words; i += BLOCK_WORDS) {
      let a = first[i] as number;
      let b = first[i + 1] as number;
      let c = first[i + 2] as number;
      let d = first[i + 3] as number;
      for (const end = at + SECTOR_WORDS; at < end; at += BLOCK_WORDS) {
        tweaks[at] = a;
        tweaks[at + 1] = b;
        tweaks[at + 2] = c;
        tweaks[at + 3] = d;
        const block = start + at;
        mixed[at] = (from[block] as number) ^ a;
        mixed[at + 1] = (from[block + 1] as number) ^ b;
        mixed[at + 2] = (from[block + 2] as number) ^ c;
        mixed[at + 3] = (from[block + 3] as number) ^ d;
        const carry = (d >> 31) & POLYNOMIAL;
        d = (d << 1) | (c >>> 31);
        c = (c << 1) | (b >>> 31);
        b = (b << 1) | (a >>> 31);
        a = (a << 1) ^ carry;
      }
    }
    if (LITTLE_ENDIAN) return;
    swapWords(tweaks, words);
    for (let i = 0; i < words; i++) mixed[i] = (from[start + i] as number) ^ (tweaks[i] as number);
  }
}
