/** Two files, by descriptors, and what is copied between them. */
export interface CopiedPlaces {
  readonly source: number;
  readonly target: number;
  /** Offset in the source, offset in the target, length in bytes, and 1 where the target reads as zeros already, again and again. */
  readonly places: readonly number[];
  /** Places in the target are whole units of this many bytes, a power of two: each that is all zeros is left out. 0: there are none. */
  readonly unit: number;
}

/**
 * Runs in a thread: uses nothing from around it. Where the target reads as zeros, zeros are left out in units of 4 KiB of the target. What
 * lies past the end of the source is zeros. Answers with a byte for each unit, in the order of the places: 1 when it holds data; undefined
 * when something failed.
 */
export function placesCopier(): (request: CopiedPlaces) => Uint8Array | undefined {
  const { readSync, writeSync } = process.getBuiltinModule("node:fs");
  // Fits the cache of a processor core.
  const usualPiece = 256 * 1024;
  const page = 4096;
  let piece = Buffer.alloc(usualPiece);
  let zeros = Buffer.alloc(page);
  const fill = (length: number, fd: number, at: number): void => {
    for (let done = 0; done < length; ) {
      const count = readSync(fd, piece, done, length - done, at + done);
      if (count === 0) {
        piece.fill(0, done, length);
        return;
      }
      done += count;
    }
  };
  const isZero = (start: number, end: number): boolean =>
    piece[start] === 0 && piece[end - 1] === 0 && zeros.compare(piece, start, end, 0, end - start) === 0;
  const write = (fd: number, at: number, start: number, end: number): void => {
    for (let done = start; done < end; ) {
      const count = writeSync(fd, piece, done, end - done, at + done);
      if (count === 0) throw new Error("nothing was written");
      done += count;
    }
  };
  /** Tells where data is, by its offset in the piece. */
  const copy = (target: number, at: number, length: number, step: number, onData: (from: number) => void): void => {
    let start = 0;
    // Steps begin at multiples of their size in the target.
    for (let from = 0, end = Math.min(length, step - (at % step)); from < length; ) {
      if (isZero(from, end)) {
        write(target, at, start, from);
        start = end;
      } else onData(from);
      from = end;
      end = Math.min(length, end + step);
    }
    write(target, at, start, length);
  };
  const copyAll = ({ source, target, places, unit }: CopiedPlaces): Uint8Array => {
    if (piece.length < unit) piece = Buffer.alloc(unit);
    if (zeros.length < unit) zeros = Buffer.alloc(unit);
    const units = [];
    for (let index = 0; index < places.length; index += 4) {
      const [from = 0, to = 0, length = 0, isZeroThere = 0] = places.slice(index, index + 4);
      const first = units.length;
      if (unit > 0) for (let at = 0; at < length; at += unit) units.push(0);
      const step = isZeroThere === 0 ? unit : unit === 0 ? page : Math.min(unit, page);
      for (let done = 0; done < length; done += piece.length) {
        const count = Math.min(piece.length, length - done);
        fill(count, source, from + done);
        copy(target, to + done, count, step, (at) => {
          if (unit > 0) units[first + Math.floor((done + at) / unit)] = 1;
        });
      }
    }
    return Uint8Array.from(units);
  };
  return (request) => {
    try {
      return copyAll(request);
    } catch {
      // Whoever asked tries by itself, and tells what is wrong.
      return undefined;
    }
  };
}
