import { AesBlocks, BLOCK_BYTES } from "./aes-blocks.js";
import { CIPHER_SECTOR_BYTES, type SectorCipher } from "./sector-cipher.js";
import type { IvGenerator } from "./sector-iv.js";
import { LITTLE_ENDIAN, swapWords, wordsOf } from "./words.js";

/** Bytes worked on at a time: input, tweaks and output stay in the processor's cache. */
const CHUNK_BYTES = 65_536;
const CHUNK_SECTORS = CHUNK_BYTES / CIPHER_SECTOR_BYTES;
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
    const result = new Uint8Array(from.length);
    this.#transform(this.#encryption, sector, wordsOf(from), new Uint32Array(result.buffer));
    return result;
  }

  decrypt(sector: number, bytes: Uint8Array): void {
    const words = wordsOf(bytes);
    this.#transform(this.#decryption, sector, words, words);
    if (words.buffer !== bytes.buffer) bytes.set(new Uint8Array(words.buffer));
  }

  #transform(blocks: AesBlocks, sector: number, from: Uint32Array, into: Uint32Array): void {
    const sectors = from.length / SECTOR_WORDS;
    for (let done = 0; done < sectors; done += CHUNK_SECTORS) {
      const count = Math.min(CHUNK_SECTORS, sectors - done);
      this.#prepareTweaks(sector + done, count);
      const at = done * SECTOR_WORDS;
      const words = count * SECTOR_WORDS;
      for (let i = 0; i < words; i++) mixed[i] = (from[at + i] as number) ^ (tweaks[i] as number);
      const transformed = wordsOf(blocks.update(mixedBytes.subarray(0, words * 4)));
      for (let i = 0; i < words; i++) into[at + i] = (transformed[i] as number) ^ (tweaks[i] as number);
    }
  }

  /** Fills `tweaks` for `count` sectors: the encrypted IV, then for each block the one before times x. */
  #prepareTweaks(sector: number, count: number): void {
    const first = wordsOf(this.#tweaking.update(this.#iv(sector, count)));
    if (!LITTLE_ENDIAN) swapWords(first, first.length);
    for (let i = 0; i < count; i++) {
      let a = first[i * BLOCK_WORDS] as number;
      let b = first[i * BLOCK_WORDS + 1] as number;
      let c = first[i * BLOCK_WORDS + 2] as number;
      let d = first[i * BLOCK_WORDS + 3] as number;
      const end = (i + 1) * SECTOR_WORDS;
      for (let at = i * SECTOR_WORDS; at < end; at += BLOCK_WORDS) {
        tweaks[at] = a;
        tweaks[at + 1] = b;
        tweaks[at + 2] = c;
        tweaks[at + 3] = d;
        const carry = (d >> 31) & POLYNOMIAL;
        d = (d << 1) | (c >>> 31);
        c = (c << 1) | (b >>> 31);
        b = (b << 1) | (a >>> 31);
        a = (a << 1) ^ carry;
      }
    }
    if (!LITTLE_ENDIAN) swapWords(tweaks, count * SECTOR_WORDS);
  }
}
