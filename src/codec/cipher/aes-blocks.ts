import { type Cipher, createCipheriv, createDecipheriv, type Decipher } from "node:crypto";
import { ZcowError } from "../../base/errors.js";

/** Bytes in a block of AES. */
export const BLOCK_BYTES = 16;

/**
 * AES on independent blocks (ECB), in one direction: what modes are made of. The cipher object lives as long as the key is in
 * use, because setting one up costs more than encrypting a sector with it.
 */
export class AesBlocks {
  readonly #cipher: Cipher | Decipher;

  /** `key`: 16, 24 or 32 bytes. */
  constructor(key: Uint8Array, direction: "encrypt" | "decrypt") {
    const name = `aes-${key.length * 8}-ecb`;
    this.#cipher = direction === "encrypt" ? createCipheriv(name, key, null) : createDecipheriv(name, key, null);
    this.#cipher.setAutoPadding(false);
  }

  /** The blocks of `from` (whole ones), transformed, in a new buffer. */
  update(from: Uint8Array): Uint8Array {
    const result = this.#cipher.update(from);
    if (result.length === from.length) return result;
    throw new ZcowError(
      "INVALID_ARGUMENT",
      `AES takes whole blocks of ${BLOCK_BYTES} bytes, not ${from.length} bytes`,
      {
        data: { value: from.length, limit: BLOCK_BYTES },
      },
    );
  }
}
