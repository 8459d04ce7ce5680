import { createHash } from "node:crypto";
import { AesBlocks, BLOCK_BYTES } from "./aes-blocks.js";

/** The IVs of `count` sectors from number `sector` on, 16 bytes each. The buffer is good until the next call. */
export type IvGenerator = (sector: number, count: number) => Uint8Array;

const WORD = 2 ** 32;

/** `plain`: the low 32 bits of the sector number, little endian, then zeros. */
export function plainIv(): IvGenerator {
  return numbered((view, at, sector) => view.setUint32(at, sector % WORD, true));
}

/** `plain64`: the sector number as 64 bits, little endian, then zeros. */
export function plain64Iv(): IvGenerator {
  return numbered((view, at, sector) => {
    view.setUint32(at, sector % WORD, true);
    view.setUint32(at + 4, Math.floor(sector / WORD), true);
  });
}

/** `essiv`: the plain64 IV, encrypted by AES with the hash of the volume's key as its key. */
export function essivIv(key: Uint8Array, hash: string): IvGenerator {
  const salt = createHash(hash).update(key).digest();
  const blocks = new AesBlocks(salt, "encrypt");
  salt.fill(0);
  const plain = plain64Iv();
  return (sector, count) => blocks.update(plain(sector, count));
}

function numbered(write: (view: DataView, at: number, sector: number) => void): IvGenerator {
  let bytes = new Uint8Array(0);
  let view = new DataView(bytes.buffer);
  return (sector, count) => {
    if (bytes.length < count * BLOCK_BYTES) {
      bytes = new Uint8Array(count * BLOCK_BYTES);
      view = new DataView(bytes.buffer);
    }
    for (let i = 0; i < count; i++) write(view, i * BLOCK_BYTES, sector + i);
    return bytes.subarray(0, count * BLOCK_BYTES);
  };
}
