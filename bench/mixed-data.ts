import { createCipheriv } from "node:crypto";
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";

/**
 * Mixed data for whole-image commands: half of it random, a quarter text-like, a quarter holes, in shuffled pieces of 1 MiB. The
 * same seed always gives the same bytes.
 */

const PIECE_BYTES = 1024 * 1024;
const CLUSTER_BYTES = 64 * 1024;
const KEY_BYTES = 16;
/** Different words in the text. */
const VOCABULARY = 4096;
const SYLLABLES = "re con tion er an the ing de st ar in co pro al ent le ma no ter vi".split(" ");

type Piece = "random" | "text" | "hole";

/** Numbers from 0 to 2^32 - 1 (xorshift32). */
function numbers(seed: number): () => number {
  let state = seed | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** A keyed stream cipher over zeros: random bytes at the speed of the processor. */
function randomBytes(seed: number): () => Uint8Array {
  const key = new Uint8Array(KEY_BYTES);
  new DataView(key.buffer).setUint32(0, seed);
  const cipher = createCipheriv("aes-128-ctr", key, new Uint8Array(KEY_BYTES));
  const zeros = new Uint8Array(PIECE_BYTES);
  return () => cipher.update(zeros);
}

/** Words of a small vocabulary, few of them often and most of them seldom: shrinks to about a third, as source text does. */
function textBytes(next: () => number): () => Uint8Array {
  const words = Array.from({ length: VOCABULARY }, () => {
    const parts = Array.from({ length: 1 + (next() % 3) }, () => SYLLABLES[next() % SYLLABLES.length]);
    return `${parts.join("")}${next() % 12 === 0 ? "\n" : " "}`;
  });
  const pick = (): string => words[Math.floor(VOCABULARY * (next() / 2 ** 32) ** 3)] ?? " ";
  return () => {
    let text = "";
    while (text.length < PIECE_BYTES) text += pick();
    return new TextEncoder().encode(text.slice(0, PIECE_BYTES));
  };
}

function shuffledPieces(count: number, next: () => number): Piece[] {
  const pieces = Array.from({ length: count }, (_, index): Piece => {
    if (index % 4 < 2) return "random";
    return index % 4 === 2 ? "text" : "hole";
  });
  for (let last = pieces.length - 1; last > 0; last--) {
    const other = next() % (last + 1);
    [pieces[last], pieces[other]] = [pieces[other] as Piece, pieces[last] as Piece];
  }
  return pieces;
}

/** Makes the raw disk `path` of `bytes` (a multiple of 1 MiB), all of it text-like. */
export function writeText(path: string, bytes: number, seed = 20_261_122): void {
  const text = textBytes(numbers(seed));
  writePieces(path, bytes, () => text());
}

/** The same, but half of every 64 KiB random: no part of it is incompressible as a whole. */
export function writeHalfRandom(path: string, bytes: number, seed = 20_261_122): void {
  const text = textBytes(numbers(seed));
  const random = randomBytes(seed);
  writePieces(path, bytes, () => {
    const [piece, other] = [text(), random()];
    for (let at = 0; at < PIECE_BYTES; at += CLUSTER_BYTES) piece.set(other.subarray(at, at + CLUSTER_BYTES / 2), at);
    return piece;
  });
}

function writePieces(path: string, bytes: number, next: () => Uint8Array): void {
  const fd = openSync(path, "w");
  try {
    for (let at = 0; at < bytes; at += PIECE_BYTES) writeSync(fd, next(), 0, PIECE_BYTES, at);
  } finally {
    closeSync(fd);
  }
}

/** Makes the raw disk `path` of `bytes` (a multiple of 1 MiB). */
export function writeMixedData(path: string, bytes: number, seed = 20_261_122): void {
  const next = numbers(seed);
  const random = randomBytes(seed);
  const text = textBytes(next);
  const fd = openSync(path, "w");
  try {
    ftruncateSync(fd, bytes);
    shuffledPieces(bytes / PIECE_BYTES, next).forEach((piece, index) => {
      if (piece !== "hole") writeSync(fd, piece === "text" ? text() : random(), 0, PIECE_BYTES, index * PIECE_BYTES);
    });
  } finally {
    closeSync(fd);
  }
}
