import { inflate } from "node:zlib";

/**
 * Unpacks a zlib stream (RFC 1950) in the thread pool. Bytes behind the stream are ignored. Rejects when the stream is
 * damaged, or gives more than `maxLength` bytes.
 */
export function inflateZlib(packed: Uint8Array, maxLength: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    inflate(packed, { maxOutputLength: maxLength }, (error, bytes) => {
      if (error === null) resolve(bytes);
      else reject(error);
    });
  });
}
