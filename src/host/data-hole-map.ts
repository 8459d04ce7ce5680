import type { NativeCalls } from "./native.js";

/* Whence values of lseek(2). */
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/** A run of stored bytes or of a hole; offset and length in bytes. */
export interface DataHoleRun {
  readonly offset: number;
  readonly length: number;
  readonly hole: boolean;
}

/**
 * Runs of data and holes covering [at, end), by asking the file system as the caller goes on. `end` is at most the size
 * of the file. A file system that keeps no map answers "all data", and so does any failure: data is always a
 * safe answer.
 */
export function* dataHoleRuns(calls: NativeCalls, fd: number, at: number, end: number): Generator<DataHoleRun> {
  let position = at;
  while (position < end) {
    const data = seek(calls, fd, position, SEEK_DATA, end);
    if (data > position) {
      yield { offset: position, length: data - position, hole: true };
      position = data;
      continue;
    }
    const hole = seek(calls, fd, position, SEEK_HOLE, end);
    // A writer elsewhere may have changed the file between the two questions.
    const next = hole > position ? hole : end;
    yield { offset: position, length: next - position, hole: false };
    position = next;
  }
}

/** ENXIO from SEEK_DATA: no data from here to the end. */
const ENXIO = 6;

function seek(calls: NativeCalls, fd: number, at: number, whence: number, end: number): number {
  const found = calls.lseek(fd, at, whence);
  if (found >= at) return Math.min(found, end);
  if (whence === SEEK_DATA && calls.errno() === ENXIO) return end;
  return whence === SEEK_DATA ? at : end;
}
