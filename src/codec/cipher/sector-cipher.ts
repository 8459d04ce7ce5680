/** Bytes in a sector: each is encrypted by itself, with its number. */
export const CIPHER_SECTOR_BYTES = 512;

/** Encrypts and decrypts whole sectors of 512 bytes, each depending on its number and the key alone. */
export interface SectorCipher {
  /** The sectors of `from`, the first of which has number `sector`, encrypted, in a new buffer. */
  encrypt(sector: number, from: Uint8Array): Uint8Array;
  /** Decrypts sectors in place. */
  decrypt(sector: number, bytes: Uint8Array): void;
}
