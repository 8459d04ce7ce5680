/**
 * File names stored in an image are bytes. Nearly all are UTF-8; any other byte is carried as a lone surrogate
 * U+DC80..U+DCFF, so that a header is rewritten without changing a name it holds.
 */

const ESCAPE_BASE = 0xdc00;
const LONE = /[\u{dc80}-\u{dcff}]/u;

/** One for all names: a hostile table has a hundred thousand of them, and a decoder is a large object. */
const STRICT = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** A stored name as a string. */
export function decodeFileName(bytes: Uint8Array): string {
  if (bytes.length === 0) return "";
  try {
    return STRICT.decode(bytes);
  } catch {
    return escaped(bytes);
  }
}

/** Characters that are made at a time: they are arguments of a call. */
const PIECE = 4096;

function escaped(bytes: Uint8Array): string {
  const units = Uint16Array.from(bytes, (byte) => (byte < 0x80 ? byte : ESCAPE_BASE + byte));
  let text = "";
  for (let at = 0; at < units.length; at += PIECE) text += String.fromCharCode(...units.subarray(at, at + PIECE));
  return text;
}

/** The bytes that `decodeFileName` made `name` from; UTF-8 for any other string. */
export function encodeFileName(name: string): Uint8Array {
  const encoder = new TextEncoder();
  if (!LONE.test(name)) return encoder.encode(name);
  const bytes: number[] = [];
  for (const character of name) {
    const code = character.codePointAt(0) ?? 0;
    if (code >= ESCAPE_BASE + 0x80 && code <= ESCAPE_BASE + 0xff) bytes.push(code - ESCAPE_BASE);
    else bytes.push(...encoder.encode(character));
  }
  return Uint8Array.from(bytes);
}
