/** Bytes as 32-bit words in the byte order of this machine: XOR does not mind, and words are several times faster than bytes. */

const WORD_BYTES = 4;

/** True where the first byte of a word is its lowest, as on nearly every machine that runs Node.js. */
export const LITTLE_ENDIAN = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

/** A view on `bytes` (a multiple of 4), or on a copy where they start between words. */
export function wordsOf(bytes: Uint8Array): Uint32Array {
  const aligned = bytes.byteOffset % WORD_BYTES === 0 ? bytes : bytes.slice();
  return new Uint32Array(aligned.buffer, aligned.byteOffset, aligned.length / WORD_BYTES);
}

/** The bytes of `words`, in place. */
export function bytesOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer, words.byteOffset, words.length * WORD_BYTES);
}

/** Turns the bytes of each word round: from the byte order of this machine into the other one. */
export function swapWords(words: Uint32Array, count: number): void {
  for (let i = 0; i < count; i++) {
    const word = words[i] as number;
    words[i] = (word << 24) | ((word & 0xff00) << 8) | ((word >>> 8) & 0xff00) | (word >>> 24);
  }
}
