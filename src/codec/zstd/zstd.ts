import { badCompressedData, type ClusterCodec } from "../cluster-codec.js";
import { mayShrink } from "../shrink-test.js";
import { readZstdFrame } from "./frame.js";

/** A Zstandard implementation that works in another thread. */
export interface ZstdLibrary {
  /** One or more whole frames with the contents of `bytes`, at the default level. */
  compress(bytes: Uint8Array): Promise<Uint8Array>;
  /** The contents of `frame`, a whole frame with nothing after it. May fail where they are more than `limit` bytes. */
  decompress(frame: Uint8Array, limit: number): Promise<Uint8Array>;
}

/**
 * Most bytes that a frame may be able to hold before it is decoded, whatever it really holds: some decoders only stop at its
 * end. Room for a 2 MiB cluster in blocks of 4 KiB; encoders make few below 8 KiB.
 */
const MAX_FRAME_CONTENT = 64 * 1024 * 1024;
/** Most frames of one cluster, empty ones included: encoders make one. */
const MAX_FRAMES = 1024;

/** Compression type 1 of qcow2, "zstd": frames until the cluster is full. */
export function zstdCodec(library: ZstdLibrary): ClusterCodec {
  return {
    name: "zstd",

    async compress(contents) {
      if (!mayShrink(contents)) return undefined;
      const bytes = await library.compress(contents);
      return bytes.length < contents.length ? bytes : undefined;
    },

    async decompress(bytes, length) {
      let rest = bytes;
      let contents: Uint8Array | undefined;
      let done = 0;
      for (let frames = 0; done < length; frames++) {
        if (frames === MAX_FRAMES) throw badCompressedData("zstd", `has more than ${MAX_FRAMES} frames`);
        const frame = readZstdFrame(rest);
        if (frame.atMost > MAX_FRAME_CONTENT) {
          throw badCompressedData("zstd", `has a frame that could hold ${frame.atMost} bytes`);
        }
        const piece = frame.skippable ? NOTHING : await decode(library, rest.subarray(0, frame.length), length - done);
        rest = rest.subarray(frame.length);
        if (piece.length === length) return piece;
        contents ??= new Uint8Array(length);
        contents.set(piece, done);
        done += piece.length;
      }
      return contents ?? NOTHING;
    },
  };
}

const NOTHING = new Uint8Array(0);

async function decode(library: ZstdLibrary, frame: Uint8Array, limit: number): Promise<Uint8Array> {
  let contents: Uint8Array;
  try {
    contents = await library.decompress(frame, limit);
  } catch (error) {
    throw badCompressedData("zstd", `is damaged (${error instanceof Error ? error.message : String(error)})`, error);
  }
  if (contents.length <= limit) return contents;
  throw badCompressedData("zstd", `holds more than the ${limit} bytes that are left of the cluster`);
}
