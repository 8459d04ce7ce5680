import { isPromise } from "../../base/maybe-promise.js";
import type { Storage } from "../../storage/storage.js";
import type { Qcow2Header, UnresolvedHeader } from "./header.js";
import { headerBytesNeeded, parseHeader } from "./header-parse.js";
import type { HeaderUse } from "./header-verdict.js";
import { resolveZonedExtension, type ZonedSource } from "./zoned-resolve.js";

/** Bytes read before the needed length is known: the header with the extensions of nearly every image. */
const FIRST_READ_BYTES = 4096;

/**
 * Reads, checks and decodes the header of an image, zoned extension included. Reads as little of cluster 0 as needed
 * (4 KiB nearly always), and the write-pointer table when the layout of the extension hangs on it.
 *
 * Throws the `QCOW2_*` codes of `parseHeader`, the `ZONED_*` codes of `resolveZonedExtension`, and those of the storage.
 */
export async function readHeader(storage: Storage, use: HeaderUse = {}): Promise<Qcow2Header> {
  const { header, source } = await readUnresolvedHeader(storage, use);
  return { ...header, zoned: await resolveZonedExtension(header, source) };
}

/** The header without its zoned extension decoded, and what is needed to decode it. Throws as `readHeader`, less the `ZONED_*` codes. */
export async function readUnresolvedHeader(
  storage: Storage,
  use: HeaderUse,
): Promise<{ readonly header: UnresolvedHeader; readonly source: ZonedSource }> {
  const fileSize = storage.size();
  const read = (offset: number, length: number): Promise<Uint8Array> => readBytes(storage, offset, length);
  const first = await read(0, FIRST_READ_BYTES);
  const needed = headerBytesNeeded(first, fileSize);
  const bytes = needed <= first.length ? first : await read(0, needed);
  return { header: parseHeader(bytes, { ...use, fileSize }), source: { fileSize, read } };
}

async function readBytes(storage: Storage, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  const wait = storage.read(offset, bytes);
  if (isPromise(wait)) await wait;
  return bytes;
}
