import { createRequire } from "node:module";
import * as zlib from "node:zlib";
import { nativeZstd } from "./zstd-native.js";

/*
 * Zstandard as this host has it, the fastest first: the library of the system, part of Node.js from 22.15 on, the optional package
 * @toondepauw/node-zstd. All work in the thread pool of Node.js.
 */

/** The level that the zstd library itself takes for its default, and QEMU with it. */
export const ZSTD_LEVEL = 3;

/** Compresses and decompresses Zstandard frames in the thread pool. Bytes that were handed over stay as they are until the end. */
export interface HostZstd {
  /** Finds out by compressing, in less time than looking for patterns takes, that bytes do not shrink. */
  readonly isSwift: boolean;
  /** It is the library of the system, called through the native helper. */
  readonly isNative: boolean;
  /** The frame, or undefined when it has more than `limit` bytes. */
  compress(bytes: Uint8Array, limit: number): Promise<Uint8Array | undefined>;
  /**
   * Puts the contents of `frame` at the start of `into`, and resolves to their length in bytes. Contents that are longer than `into`
   * are a failure or give their length.
   */
  decompress(frame: Uint8Array, into: Uint8Array): Promise<number>;
}

type Done = (error: Error | null, result: Uint8Array) => void;

/** What Node.js has from 22.15 on; the types of Node.js 20 do not know it. */
interface NodeZstd {
  zstdCompress(bytes: Uint8Array, options: object, done: Done): void;
  zstdDecompress(bytes: Uint8Array, options: object, done: Done): void;
  readonly constants: { readonly ZSTD_c_compressionLevel: number };
}

interface PackageZstd {
  readonly Encoder: new (level: number) => { encode(bytes: Uint8Array): Promise<Uint8Array> };
  readonly Decoder: new () => { decode(bytes: Uint8Array): Promise<Uint8Array> };
}

/** Undefined where there is none. */
export function hostZstd(): HostZstd | undefined {
  const native = nativeZstd(ZSTD_LEVEL);
  if (native !== undefined) return native;
  const node = zlib as unknown as Partial<NodeZstd>;
  return node.zstdCompress === undefined ? packageZstd() : nodeZstd(node as NodeZstd);
}

function nodeZstd(node: NodeZstd): HostZstd {
  const level = { params: { [node.constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL } };
  return {
    isSwift: false,
    isNative: false,
    compress: async (bytes, limit) =>
      within(limit, await called((done) => node.zstdCompress(bytes, { ...level, chunkSize: bytes.length }, done))),
    decompress: async (frame, into) => {
      const limits = { maxOutputLength: into.length, chunkSize: into.length + 1 };
      return put(await called((done) => node.zstdDecompress(frame, limits, done)), into);
    },
  };
}

function within(limit: number, frame: Uint8Array): Uint8Array | undefined {
  return frame.length > limit ? undefined : frame;
}

/** The length of `contents`, which go to `into` if they fit. */
function put(contents: Uint8Array, into: Uint8Array): number {
  if (contents.length <= into.length) into.set(contents);
  return contents.length;
}

function called(call: (done: Done) => void): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    call((error, result) => {
      if (error === null) resolve(result);
      else reject(error);
    });
  });
}

function packageZstd(): HostZstd | undefined {
  try {
    const { Encoder, Decoder }: PackageZstd = createRequire(import.meta.url)("@toondepauw/node-zstd");
    const encoder = new Encoder(ZSTD_LEVEL);
    const decoder = new Decoder();
    // The package insists on the class Buffer.
    return {
      isSwift: false,
      isNative: false,
      compress: async (bytes, limit) => within(limit, await encoder.encode(asBuffer(bytes))),
      decompress: async (frame, into) => put(await decoder.decode(asBuffer(frame)), into),
    };
  } catch {
    // Not installed, or not built for this system.
    return undefined;
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
