import { viewOf } from "../../../base/bytes.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { TABLE_ENTRY_BYTES } from "../limits.js";
import { L1_PIECE_BYTES } from "./check-limits.js";
import type { CheckSession } from "./check-session.js";

/** Some entries of an L1 table: `view` holds `count` of them, the first is entry `first` of the table. */
export interface L1Piece {
  readonly view: DataView;
  readonly first: number;
  readonly count: number;
}

/**
 * The entries of an L1 table of `length` entries at `offset`, as far as they lie in the file; behind its end all are zero. One
 * buffer serves all pieces: a table may have 32 MiB, and a check goes over it more than once.
 */
export async function* l1Pieces(
  session: CheckSession,
  { offset, length }: { readonly offset: number; readonly length: number },
  stage: string,
): AsyncGenerator<L1Piece> {
  const inFile = Math.ceil((session.fileLength - offset) / TABLE_ENTRY_BYTES);
  const end = Math.min(length, inFile);
  if (end <= 0) return;
  const perPiece = L1_PIECE_BYTES / TABLE_ENTRY_BYTES;
  const buffer = new Uint8Array(Math.min(end, perPiece) * TABLE_ENTRY_BYTES);
  for (let first = 0; first < end; first += perPiece) {
    const count = Math.min(perPiece, end - first);
    const bytes = buffer.subarray(0, count * TABLE_ENTRY_BYTES);
    const wait = session.read(offset + first * TABLE_ENTRY_BYTES, bytes, stage);
    if (isPromise(wait)) await wait;
    yield { view: viewOf(bytes), first, count };
  }
}
