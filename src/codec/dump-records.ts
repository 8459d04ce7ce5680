import { deflateRawSync, inflateRawSync } from "node:zlib";
import { viewOf, writeU64 } from "../base/bytes.js";
import { ZcowError } from "../base/errors.js";

/**
 * The file of a dump: pieces of another file with their places. All numbers are big endian.
 *
 *     0   8 bytes  "zcowdump"
 *     8   u32      version, 1
 *     12  u32      0
 *     16  u64      length of the other file in bytes
 *     24  records  u64 place, u32 length, u32 stored length, stored bytes; ascending, without overlap
 *     end          a record of length 0 at the end of the other file
 *
 * Bytes are stored deflated where that makes them fewer: then the stored length is below the length.
 */

const MARK = new TextEncoder().encode("zcowdump");
const VERSION = 1;
export const DUMP_HEADER_BYTES = 24;
export const DUMP_RECORD_BYTES = 16;
/** Bytes of one piece at most. */
export const MAX_DUMP_PIECE = 65_536;

/** The first bytes of a dump of a file of `fileBytes`. */
export function encodeDumpHeader(fileBytes: number): Uint8Array {
  const bytes = new Uint8Array(DUMP_HEADER_BYTES);
  bytes.set(MARK);
  viewOf(bytes).setUint32(8, VERSION);
  writeU64(viewOf(bytes), 16, fileBytes);
  return bytes;
}

/** The length of the other file. Throws `DUMP_FORMAT`. */
export function decodeDumpHeader(bytes: Uint8Array): number {
  const view = viewOf(bytes);
  if (!MARK.every((byte, index) => bytes[index] === byte)) throw badDump("it does not begin as a dump does", 0);
  if (view.getUint32(8) !== VERSION) throw badDump(`version ${view.getUint32(8)} is not known`, 8);
  return length64(view, 16, "file length");
}

/** A piece as it is stored; an empty one ends the dump. */
export function encodeDumpRecord(at: number, piece: Uint8Array): Uint8Array {
  const deflated = piece.length === 0 ? piece : deflateRawSync(piece);
  const stored = deflated.length < piece.length ? deflated : piece;
  const bytes = new Uint8Array(DUMP_RECORD_BYTES + stored.length);
  writeU64(viewOf(bytes), 0, at);
  viewOf(bytes).setUint32(8, piece.length);
  viewOf(bytes).setUint32(12, stored.length);
  bytes.set(stored, DUMP_RECORD_BYTES);
  return bytes;
}

/** Head of a record. */
export interface DumpRecord {
  readonly at: number;
  readonly length: number;
  readonly storedLength: number;
}

/** The head of the record at byte `offset` of the dump. Throws `DUMP_FORMAT`. */
export function decodeDumpRecord(bytes: Uint8Array, offset: number, fileBytes: number): DumpRecord {
  const view = viewOf(bytes);
  const at = length64(view, 0, "place");
  const length = view.getUint32(8);
  const storedLength = view.getUint32(12);
  if (length > MAX_DUMP_PIECE) throw badDump(`a piece of ${length} bytes is above the limit ${MAX_DUMP_PIECE}`, offset);
  if (storedLength > length) throw badDump(`${storedLength} bytes are stored for a piece of ${length}`, offset);
  if (at + length > fileBytes) {
    throw badDump(`a piece of ${length} bytes at ${at} lies outside of a file of ${fileBytes}`, offset);
  }
  return { at, length, storedLength };
}

/** The bytes of a piece. Throws `DUMP_FORMAT`. */
export function decodeDumpPiece({ length, storedLength }: DumpRecord, stored: Uint8Array, offset: number): Uint8Array {
  if (storedLength === length) return stored;
  let piece: Uint8Array;
  try {
    piece = inflateRawSync(stored, { maxOutputLength: length });
  } catch (cause) {
    throw badDump(`the piece does not unpack: ${String(cause)}`, offset);
  }
  if (piece.length !== length) throw badDump(`the piece has ${piece.length} bytes, not ${length}`, offset);
  return piece;
}

function length64(view: DataView, at: number, field: string): number {
  const value = Number(view.getBigUint64(at));
  if (Number.isSafeInteger(value)) return value;
  throw badDump(`${field} ${value} is above 2^53-1`, at);
}

/** The refusal of a dump that breaks its format; `offset` in the dump. */
export function badDump(why: string, offset: number): ZcowError {
  return new ZcowError("DUMP_FORMAT", `The dump cannot be used: ${why} (at byte ${offset})`, {
    data: { structure: "dump", offset },
  });
}
