import { createDecipheriv, createHash, pbkdf2Sync } from "node:crypto";

/**
 * A naive reading of LUKS version 1 as qcow2 images have it: aes-xts-plain64, one sector at a time, with
 * Node's own ciphers. Shares no code with `src/`.
 */
const SECTOR = 512;
const SLOTS = 8;
const SLOT_AT = 208;
const SLOT_BYTES = 48;
const SLOT_ACTIVE = 0x00ac71f3;

interface Volume {
  readonly mode: string;
  readonly key: Uint8Array;
}

/** Bytes of `header` that decide about the key, and the key: opening takes thousands of hashes. */
const opened = new Map<string, Volume>();

/** What lies at `host`, a multiple of the sector size, decrypted. */
export function referenceLuksRead(
  header: Uint8Array,
  passphrase: string,
  host: number,
  stored: Uint8Array,
): Uint8Array {
  const known = createHash("sha256").update(header).digest("hex");
  const volume = opened.get(known) ?? open(header, passphrase);
  opened.set(known, volume);
  const sectors: Uint8Array[] = [];
  for (let at = 0; at < stored.length; at += SECTOR) {
    sectors.push(decrypt(volume, (host + at) / SECTOR, stored.subarray(at, at + SECTOR)));
  }
  return Buffer.concat(sectors);
}

function open(header: Uint8Array, passphrase: string): Volume {
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  const mode = text(header, 40, 32);
  const hash = text(header, 72, 32);
  const keyBytes = view.getUint32(108);
  for (let slot = 0; slot < SLOTS; slot++) {
    const at = SLOT_AT + slot * SLOT_BYTES;
    if (view.getUint32(at) !== SLOT_ACTIVE) continue;
    const salt = header.subarray(at + 8, at + 40);
    const key = pbkdf2Sync(passphrase, salt, view.getUint32(at + 4), keyBytes, hash);
    const stripes = view.getUint32(at + 44);
    const material = header.subarray(view.getUint32(at + 40) * SECTOR).subarray(0, keyBytes * stripes);
    const padded = new Uint8Array(Math.ceil(material.length / SECTOR) * SECTOR);
    padded.set(material);
    const split: Uint8Array[] = [];
    for (let from = 0; from < padded.length; from += SECTOR) {
      split.push(decrypt({ mode, key }, from / SECTOR, padded.subarray(from, from + SECTOR)));
    }
    const candidate = merge(Buffer.concat(split), keyBytes, stripes, hash);
    const digest = pbkdf2Sync(candidate, header.subarray(132, 164), view.getUint32(164), 20, hash);
    if (Buffer.compare(digest, header.subarray(112, 132)) === 0) return { mode, key: candidate };
  }
  throw new Error("no key slot opens with the passphrase");
}

/** The anti-forensic merge: all stripes but the last are mixed in turn, each by a hash in pieces. */
function merge(split: Uint8Array, keyBytes: number, stripes: number, hash: string): Uint8Array {
  let mixed: Uint8Array = new Uint8Array(keyBytes);
  for (let stripe = 0; stripe < stripes; stripe++) {
    mixed = mixed.map((byte, at) => byte ^ (split[stripe * keyBytes + at] as number));
    if (stripe < stripes - 1) mixed = diffuse(mixed, hash);
  }
  return mixed;
}

function diffuse(bytes: Uint8Array, hash: string): Uint8Array {
  const size = createHash(hash).digest().length;
  const pieces: Uint8Array[] = [];
  for (let at = 0, index = 0; at < bytes.length; at += size, index++) {
    const number = Buffer.alloc(4);
    number.writeUInt32BE(index);
    const piece = bytes.subarray(at, at + size);
    pieces.push(createHash(hash).update(number).update(piece).digest().subarray(0, piece.length));
  }
  return Buffer.concat(pieces);
}

function decrypt({ mode, key }: Volume, sector: number, bytes: Uint8Array): Uint8Array {
  const iv = Buffer.alloc(16);
  iv.writeBigUInt64LE(BigInt(sector));
  if (mode !== "xts-plain64") throw new Error(`mode ${mode}`);
  const cipher = createDecipheriv(key.length === 64 ? "aes-256-xts" : "aes-128-xts", key, iv).setAutoPadding(false);
  return cipher.update(bytes);
}

function text(bytes: Uint8Array, at: number, length: number): string {
  const field = bytes.subarray(at, at + length);
  const end = field.indexOf(0);
  return new TextDecoder().decode(end === -1 ? field : field.subarray(0, end));
}
