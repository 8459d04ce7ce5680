import { isZcowError } from "../../src/base/errors.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";
import type { Storage } from "../../src/storage/storage.js";

/** What a guest can read of an image, piece by piece. */

export interface ReadableData {
  readonly pieceSize: number;
  /** Undefined where reading fails. */
  readonly pieces: readonly (Uint8Array | undefined)[];
}

/** Reads the disk of an image that may be damaged; undefined when it cannot be opened. `dataFile`: its external data. */
export async function readableData(
  bytes: Uint8Array,
  pieceSize: number,
  dataFile?: Storage,
): Promise<ReadableData | undefined> {
  try {
    const device = await openQcow2(
      memoryStorage(bytes),
      dataFile === undefined ? { readOnly: true } : { readOnly: true, dataFile },
    );
    const pieces: (Uint8Array | undefined)[] = [];
    for (let at = 0; at < device.size; at += pieceSize) {
      const piece = new Uint8Array(Math.min(pieceSize, device.size - at));
      pieces.push(await reads(async () => device.read(at, piece)).then((done) => (done ? piece : undefined)));
    }
    await device.close();
    return { pieceSize, pieces };
  } catch (error) {
    if (!isZcowError(error)) throw error;
    return undefined;
  }
}

async function reads(read: () => Promise<void>): Promise<boolean> {
  try {
    await read();
    return true;
  } catch (error) {
    if (!isZcowError(error)) throw error;
    return false;
  }
}

/** Pieces that could be read as they were in `good`, and no longer can; bytes of the disk. */
export function lostPieces(good: ReadableData, before: ReadableData | undefined, after: ReadableData): number[] {
  const lost: number[] = [];
  for (const [index, piece] of good.pieces.entries()) {
    const was = before?.pieces[index];
    if (piece === undefined || was === undefined || !same(piece, was)) continue;
    const is = after.pieces[index];
    if (is === undefined || !same(piece, is)) lost.push(index * good.pieceSize);
  }
  return lost;
}

function same(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
