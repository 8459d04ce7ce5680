import { badCompressedData, type ClusterCodec } from "../cluster-codec.js";
import { mayShrink } from "../shrink-test.js";
import { readZstdFrame } from "./frame.js";

/** A Zstandard implementation that works in another thread. */
export interface ZstdLibrary {
  /** Finds out by compressing, in less time than looking for patterns takes, that bytes do not shrink. */
  readonly isSwift: boolean;
  /** It is the library of the system, called through the native helper. */
  readonly isNative: boolean;
  /** One or more whole frames with the contents of `bytes`, at the default level; undefined when they have more than `limit` bytes. */
  compress(bytes: Uint8Array, limit: number): Promise<Uint8Array | undefined>;
  /**
   * Puts the contents of `frame`, a whole frame with nothing after it, at the start of `into`; their length in bytes. Where they are more
   * than `into` takes, it fails or gives that length.
   */
  decompress(frame: Uint8Array, into: Uint8Array): Promise<number>;
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
  const isWorthTrying = (contents: Uint8Array): boolean => library.isSwift || mayShrink(contents);
  return {
    name: "zstd",
    threadMethod: library.isNative ? "zstd" : undefined,

    mayShrink: isWorthTrying,

    async compress(contents) {
      if (!isWorthTrying(contents)) return undefined;
      return library.compress(contents, contents.length - 1);
    },

    async decompress(bytes, into) {
      let rest = bytes;
      let done = 0;
      for (let frames = 0; done < into.length; frames++) {
        if (frames === MAX_FRAMES) throw badCompressedData("zstd", `has more than ${MAX_FRAMES} frames`);
        const frame = readZstdFrame(rest);
        if (frame.atMost > MAX_FRAME_CONTENT) {
          throw badCompressedData("zstd", `has a frame that could hold ${frame.atMost} bytes`);
        }
        if (!frame.skippable) done += await decode(library, rest.subarray(0, frame.length), into.subarray(done));
        rest = rest.subarray(frame.length);
      }
    },
  };
}

async function decode(library: ZstdLibrary, frame: Uint8Array, into: Uint8Array): Promise<number> {
  let length: number;
  try {
    length = await library.decompress(frame, into);
  } catch (error) {
    throw badCompressedData("zstd", `is damaged (${error instanceof Error ? error.message : String(error)})`, error);
  }
  if (length <= into.length) return length;
  throw badCompressedData("zstd", `holds more than the ${into.length} bytes that are left of the cluster`);
}
