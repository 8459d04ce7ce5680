import { AesBlocks, BLOCK_BYTES } from "./aes-blocks.js";
import { CIPHER_SECTOR_BYTES, type SectorCipher } from "./sector-cipher.js";
import type { IvGenerator } from "./sector-iv.js";
import { wordsOf } from "./words.js";

const BLOCK_WORDS = BLOCK_BYTES / 4;
const SECTOR_WORDS = CIPHER_SECTOR_BYTES / 4;
/** Sectors encrypted side by side: enough that a call for one block of each is worth its price. */
const CHUNK_SECTORS = 256;

/**
 * AES-CBC by sectors of 512 bytes. The blocks of a sector can only be encrypted one after the other, but sectors do not depend on
 * each other: each call takes the same block of many sectors. Decryption takes all blocks at once.
 */
export class AesCbc implements SectorCipher {
  readonly #encryption: AesBlocks;
  readonly #decryption: AesBlocks;
  readonly #iv: IvGenerator;

  constructor(key: Uint8Array, iv: IvGenerator) {
    this.#encryption = new AesBlocks(key, "encrypt");
    this.#decryption = new AesBlocks(key, "decrypt");
    this.#iv = iv;
  }

  encrypt(sector: number, from: Uint8Array): Uint8Array {
    const result = new Uint8Array(from.length);
    const words = wordsOf(from);
    const into = new Uint32Array(result.buffer);
    const sectors = from.length / CIPHER_SECTOR_BYTES;
    for (let done = 0; done < sectors; done += CHUNK_SECTORS) {
      const count = Math.min(CHUNK_SECTORS, sectors - done);
      this.#encryptChunk(this.#iv(sector + done, count), words, into, done * SECTOR_WORDS, count);
    }
    return result;
  }

  #encryptChunk(iv: Uint8Array, from: Uint32Array, into: Uint32Array, start: number, count: number): void {
    let previous = wordsOf(iv);
    const column = new Uint32Array(count * BLOCK_WORDS);
    const columnBytes = new Uint8Array(column.buffer);
    for (let block = 0; block < SECTOR_WORDS; block += BLOCK_WORDS) {
      for (let i = 0; i < count; i++) {
        const at = start + i * SECTOR_WORDS + block;
        for (let word = 0; word < BLOCK_WORDS; word++) {
          const inColumn = i * BLOCK_WORDS + word;
          column[inColumn] = (from[at + word] as number) ^ (previous[inColumn] as number);
        }
      }
      previous = wordsOf(this.#encryption.update(columnBytes));
      for (let i = 0; i < count; i++) {
        const at = start + i * SECTOR_WORDS + block;
        for (let word = 0; word < BLOCK_WORDS; word++) into[at + word] = previous[i * BLOCK_WORDS + word] as number;
      }
    }
  }

  decrypt(sector: number, bytes: Uint8Array): void {
    const words = wordsOf(bytes);
    const sectors = bytes.length / CIPHER_SECTOR_BYTES;
    for (let done = 0; done < sectors; done += CHUNK_SECTORS) {
      const count = Math.min(CHUNK_SECTORS, sectors - done);
      const at = done * CIPHER_SECTOR_BYTES;
      const length = count * CIPHER_SECTOR_BYTES;
      const blocks = wordsOf(this.#decryption.update(bytes.subarray(at, at + length)));
      this.#unchain(wordsOf(this.#iv(sector + done, count)), blocks, words, at / 4, count);
    }
    if (words.buffer !== bytes.buffer) bytes.set(new Uint8Array(words.buffer));
  }

  /** Takes out of each decrypted block the encrypted one before it, which `words` still has; of the first one the IV. */
  #unchain(iv: Uint32Array, blocks: Uint32Array, words: Uint32Array, start: number, count: number): void {
    for (let i = count - 1; i >= 0; i--) {
      const first = i * SECTOR_WORDS;
      for (let word = SECTOR_WORDS - 1; word >= 0; word--) {
        const at = first + word;
        const previous = word < BLOCK_WORDS ? iv[i * BLOCK_WORDS + word] : words[start + at - BLOCK_WORDS];
        words[start + at] = (blocks[at] as number) ^ (previous as number);
      }
    }
  }
}
