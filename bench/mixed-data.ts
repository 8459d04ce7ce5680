import { createCipheriv } from "node:crypto";
import { closeSync, ftruncateSync, openSync, readdirSync, readFileSync, writeSync } from "node:fs";
import { join } from "node:path";

/**
 * Mixed data for whole-image commands: half of it random, a quarter source text, a quarter holes, in shuffled pieces of 1 MiB. The
 * same seed always gives the same bytes, as long as the development packages are the same.
 */

const PIECE_BYTES = 1024 * 1024;
const CLUSTER_BYTES = 64 * 1024;
const KEY_BYTES = 16;

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

/** Where source text is: what this project is developed with, the same files on every machine. */
const SOURCE_FOLDER = join(import.meta.dirname, "../../node_modules");
const SOURCE_FILE = /\.([cm]?[jt]s|md)$/;
/** Enough that nothing comes again within reach of any compressor. */
const MOST_SOURCE_BYTES = 128 * 1024 * 1024;

function* sourceFiles(folder: string): Generator<string> {
  const entries = readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const entry of entries) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* sourceFiles(path);
    else if (entry.isFile() && SOURCE_FILE.test(entry.name)) yield path;
  }
}

let source: Uint8Array | undefined;

function sourceText(): Uint8Array {
  if (source !== undefined) return source;
  const parts: Uint8Array[] = [];
  let length = 0;
  for (const path of sourceFiles(SOURCE_FOLDER)) {
    if (length >= MOST_SOURCE_BYTES) break;
    const part = readFileSync(path);
    parts.push(part);
    length += part.length;
  }
  if (length < 8 * PIECE_BYTES)
    throw new Error(`${SOURCE_FOLDER} holds too little source text: install the development packages`);
  source = Buffer.concat(parts);
  return source;
}

/** One piece of source text after the other, from the start again when all was there. */
function textBytes(): () => Uint8Array {
  const text = sourceText();
  let at = 0;
  return () => {
    if (at + PIECE_BYTES > text.length) at = 0;
    at += PIECE_BYTES;
    return text.subarray(at - PIECE_BYTES, at);
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

/** Makes the raw disk `path` of `bytes` (a multiple of 1 MiB), all of it source text. */
export function writeText(path: string, bytes: number): void {
  const text = textBytes();
  writePieces(path, bytes, () => text());
}

/** The same, but half of every 64 KiB random: no part of it is incompressible as a whole. */
export function writeHalfRandom(path: string, bytes: number, seed = 20_261_122): void {
  const text = textBytes();
  const random = randomBytes(seed);
  writePieces(path, bytes, () => {
    const [piece, other] = [text().slice(), random()];
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
  const text = textBytes();
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
