import { createRequire } from "node:module";
import * as zlib from "node:zlib";

/*
 * Zstandard as this host has it: part of Node.js from 22.15 on, before that the optional package @toondepauw/node-zstd.
 * Both work in the thread pool of Node.js.
 */

/** The level that the zstd library itself takes for its default, and QEMU with it. */
const LEVEL = 3;

/** Compresses and decompresses Zstandard frames in the thread pool. */
interface HostZstd {
  compress(bytes: Uint8Array): Promise<Uint8Array>;
  /** `limit`: bytes of contents after which decoding may stop with a failure. */
  decompress(frame: Uint8Array, limit: number): Promise<Uint8Array>;
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

/** Undefined where there is neither. */
export function hostZstd(): HostZstd | undefined {
  const node = zlib as unknown as Partial<NodeZstd>;
  return node.zstdCompress === undefined ? packageZstd() : nodeZstd(node as NodeZstd);
}

function nodeZstd(node: NodeZstd): HostZstd {
  const level = { params: { [node.constants.ZSTD_c_compressionLevel]: LEVEL } };
  return {
    compress: (bytes) => called((done) => node.zstdCompress(bytes, { ...level, chunkSize: bytes.length }, done)),
    decompress: (frame, limit) =>
      called((done) => node.zstdDecompress(frame, { maxOutputLength: limit, chunkSize: limit + 1 }, done)),
  };
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
    const encoder = new Encoder(LEVEL);
    const decoder = new Decoder();
    // The package insists on the class Buffer.
    return {
      compress: (bytes) => encoder.encode(asBuffer(bytes)),
      decompress: (frame) => decoder.decode(asBuffer(frame)),
    };
  } catch {
    // Not installed, or not built for this system.
    return undefined;
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
