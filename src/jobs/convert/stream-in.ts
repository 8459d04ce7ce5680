import { isPromise } from "../../base/maybe-promise.js";
import { MiB } from "../../base/units.js";
import type { BlockDevice } from "../../block/block-device.js";
import { DEFAULT_SPARSE_BYTES } from "./copy-disk.js";
import { dataSpans } from "./zero-scan.js";

/** A new disk that becomes larger as its data arrive. */
export interface GrowingDisk {
  readonly device: BlockDevice;
  /** Makes the disk `size` bytes large; `device` may be another one afterwards. */
  resize(size: number): Promise<void>;
}

export interface StreamInOptions {
  readonly compressed: boolean;
  /** As in `CopyOptions`. */
  readonly sparseBytes?: number | undefined;
  readonly onProgress?: (done: number) => void;
}

/** A multiple of every cluster size. */
const PIECE_BYTES = 2 * MiB;
const FIRST_SIZE = 64 * MiB;
const SECTOR_BYTES = 512;

/**
 * Writes a stream of bytes whose end nobody knows to a new disk, which doubles whenever it is full and is cut to the length of the stream at the
 * end. Zeros are not stored. Resolves to that length.
 */
export async function copyFromStream(
  chunks: AsyncIterable<Uint8Array>,
  disk: GrowingDisk,
  options: StreamInOptions,
): Promise<number> {
  const piece = new Uint8Array(PIECE_BYTES);
  let [filled, done] = [0, 0];
  const store = async (): Promise<void> => {
    if (done + PIECE_BYTES > disk.device.size) await disk.resize(Math.max(FIRST_SIZE, disk.device.size * 2));
    await writePiece(disk.device, done, piece, filled, options);
    done += filled;
    filled = 0;
    options.onProgress?.(done);
  };
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length; ) {
      const count = Math.min(chunk.length - at, PIECE_BYTES - filled);
      piece.set(chunk.subarray(at, at + count), filled);
      filled += count;
      at += count;
      if (filled === PIECE_BYTES) await store();
    }
  }
  if (filled > 0) await store();
  await disk.resize(done);
  return done;
}

async function writePiece(
  device: BlockDevice,
  offset: number,
  piece: Uint8Array,
  length: number,
  { compressed, sparseBytes = DEFAULT_SPARSE_BYTES }: StreamInOptions,
): Promise<void> {
  // What is past the end is cut off later, and is zero until then.
  const unit = compressed ? device.limits.optimalAlignment : Math.max(sparseBytes, SECTOR_BYTES);
  const end = Math.min(piece.length, Math.ceil(length / unit) * unit);
  piece.fill(0, length, end);
  const bytes = piece.subarray(0, end);
  const spans = sparseBytes === 0 ? [{ start: 0, end }] : dataSpans(bytes, offset, unit);
  for (const span of spans) {
    const data = bytes.subarray(span.start, span.end);
    const wait = compressed
      ? device.writeCompressed(offset + span.start, data)
      : device.write(offset + span.start, data);
    if (isPromise(wait)) await wait;
  }
}
