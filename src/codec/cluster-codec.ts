import { ZcowError } from "../base/errors.js";

/** What threads know: raw deflate, and zstd by the library of the system. */
export type ThreadMethod = "deflate" | "zstd";

/** Compresses and decompresses the contents of one cluster, away from the main thread. */
export interface ClusterCodec {
  /** Name of the method, as users know it. */
  readonly name: string;
  /** How threads of their own may do the same (formats/qcow2/compressing-threads.ts, decompressing-threads.ts); undefined where they may not. */
  readonly threadMethod: ThreadMethod | undefined;
  /** Whether it is worth trying: a test that takes far less time than `compress`, which begins with it. */
  mayShrink(contents: Uint8Array): boolean;
  /** The compressed bytes, or undefined when they would not be fewer than those of `contents`. */
  compress(contents: Uint8Array): Promise<Uint8Array | undefined>;
  /**
   * Fills `into` with the contents, which have exactly its length. `bytes` may go on after the compressed data: the rest is ignored.
   * Rejects with `COMPRESSED_DATA`, and what `into` holds then is not defined; no more than a small multiple of its length is ever
   * allocated.
   */
  decompress(bytes: Uint8Array, into: Uint8Array): Promise<void>;
}

/** The refusal of compressed bytes; `found` says what is wrong with them. */
export function badCompressedData(method: string, found: string, cause?: unknown): ZcowError {
  return new ZcowError("COMPRESSED_DATA", `the ${method} data ${found}`, { data: { structure: method }, cause });
}
