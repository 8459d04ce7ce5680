import { viewOf } from "../../base/bytes.js";
import { badCompressedData } from "../cluster-codec.js";

/**
 * The outside of Zstandard frames (RFC 8878, section 3.1): where a frame ends and how much it can hold, found by walking
 * its block headers. Decoders refuse bytes behind a frame, and the last sector of a cluster's data belongs to others.
 */

const MAGIC = 0xfd2f_b528;
const SKIPPABLE_MAGIC = 0x184d_2a50;
/** The low four bits of a skippable frame's magic are free. */
const SKIPPABLE_MASK = 0xffff_fff0;
const MAX_BLOCK = 128 * 1024;
const RAW_BLOCK = 0;
const RLE_BLOCK = 1;
const COMPRESSED_BLOCK = 2;

export interface ZstdFrame {
  /** Bytes from the magic to the end of the frame. */
  readonly length: number;
  /** Holds no data: to be skipped. */
  readonly skippable: boolean;
  /**
   * Most bytes that its blocks can hold: exact for stored blocks, the largest block for compressed ones. The content size in the
   * header is a claim that decoders compare at the end only.
   */
  readonly atMost: number;
}

interface FrameHeader {
  /** Bytes up to the first block. */
  readonly length: number;
  readonly hasChecksum: boolean;
  /** Largest block, bytes. */
  readonly blockLimit: number;
}

/** The frame at the start of `bytes`. Throws `COMPRESSED_DATA` when there is no whole frame. */
export function readZstdFrame(bytes: Uint8Array): ZstdFrame {
  const view = viewOf(bytes);
  if (bytes.length < 8) throw truncated();
  const magic = view.getUint32(0, true);
  if ((magic & SKIPPABLE_MASK) >>> 0 === SKIPPABLE_MAGIC) return skippableFrame(view);
  if (magic !== MAGIC) throw badCompressedData("zstd", "does not start with a frame");
  const header = readHeader(view);
  let at = header.length;
  let atMost = 0;
  for (let last = false; !last; ) {
    if (at + 3 > bytes.length) throw truncated();
    const word = view.getUint16(at, true) + view.getUint8(at + 2) * 0x1_0000;
    last = (word & 1) !== 0;
    const size = word >>> 3;
    if (size > header.blockLimit)
      throw badCompressedData("zstd", `has a block of ${size} bytes, the limit is ${header.blockLimit}`);
    const type = (word >>> 1) & 3;
    atMost += heldBy(type, size, header.blockLimit);
    at += 3 + (type === RLE_BLOCK ? 1 : size);
  }
  if (header.hasChecksum) at += 4;
  if (at > bytes.length) throw truncated();
  return { length: at, skippable: false, atMost };
}

function heldBy(type: number, size: number, blockLimit: number): number {
  switch (type) {
    case RAW_BLOCK:
    case RLE_BLOCK:
      return size;
    case COMPRESSED_BLOCK:
      return blockLimit;
    default:
      throw badCompressedData("zstd", "has a block of the reserved type");
  }
}

function skippableFrame(view: DataView): ZstdFrame {
  const length = 8 + view.getUint32(4, true);
  if (length > view.byteLength) throw truncated();
  return { length, skippable: true, atMost: 0 };
}

function readHeader(view: DataView): FrameHeader {
  const descriptor = view.getUint8(4);
  const singleSegment = (descriptor & 0x20) !== 0;
  const sizeFlag = descriptor >>> 6;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] as number;
  const sizeBytes = sizeFlag === 0 ? (singleSegment ? 1 : 0) : 2 ** sizeFlag;
  const windowBytes = singleSegment ? 0 : 1;
  const length = 5 + windowBytes + dictionaryBytes + sizeBytes;
  if ((descriptor & 0x08) !== 0) throw badCompressedData("zstd", "has a reserved bit set");
  if (length > view.byteLength) throw truncated();
  for (let at = 5 + windowBytes; at < length - sizeBytes; at++) {
    if (view.getUint8(at) !== 0) throw badCompressedData("zstd", "needs a dictionary");
  }
  const window = singleSegment ? readSize(view, length - sizeBytes, sizeBytes) : windowSize(view.getUint8(5));
  return { length, hasChecksum: (descriptor & 4) !== 0, blockLimit: Math.min(window, MAX_BLOCK) };
}

/** The content size that a frame of a single segment always has; its window is as large. */
function readSize(view: DataView, at: number, bytes: number): number {
  switch (bytes) {
    case 1:
      return view.getUint8(at);
    case 2:
      return view.getUint16(at, true) + 256;
    case 4:
      return view.getUint32(at, true);
    default:
      return view.getUint32(at, true) + view.getUint32(at + 4, true) * 0x1_0000_0000;
  }
}

/** RFC 8878, section 3.1.1.1.2. */
function windowSize(descriptor: number): number {
  const base = 2 ** (10 + (descriptor >>> 3));
  return base + (base / 8) * (descriptor & 7);
}

function truncated(): Error {
  return badCompressedData("zstd", "ends inside a frame");
}
