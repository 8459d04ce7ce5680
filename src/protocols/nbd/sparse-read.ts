/**
 * Reads that leave out long runs of zeros: each run becomes a chunk of a few bytes, which is written where the zeros were,
 * and so is the header of the data behind it. Nothing is moved.
 */
import { KiB } from "../../base/units.js";
import { isZero } from "./export.js";
import type { Replies, RequestId } from "./replies.js";
import type { ReplyRoom } from "./reply-blocks.js";

/** Runs are looked for in steps of this many bytes; much larger than the headers that replace them. */
const STEP_BYTES = 32 * KiB;
/** Shorter reads are not looked through. */
export const SPARSE_BYTES = STEP_BYTES;

interface Run {
  /** Bytes from the start of the data. */
  readonly start: number;
  readonly end: number;
  readonly zero: boolean;
}

/** Sends the data of a room, which starts at byte `offset` of the export, as chunks. `last`: with them the reply ends. */
export function sendSparse(replies: Replies, room: ReplyRoom, id: RequestId, offset: number, last: boolean): void {
  const { blocks, dataHead } = replies;
  const dataStart = room.start + dataHead;
  const length = room.length - dataHead;
  const runs = runsOf(room.block.subarray(dataStart, dataStart + length));
  let segment = room.start;
  let end = room.start;
  for (const [index, run] of runs.entries()) {
    const done = last && index === runs.length - 1;
    const at = run.start === 0 ? room.start : dataStart + run.start - (run.zero ? 0 : dataHead);
    // Between a hole's chunk and the next header lies what is left of the zeros.
    if (at > end) {
      blocks.sendPart(room, segment, end - segment);
      segment = at;
    }
    if (run.zero) {
      replies.writeHole(room.view, at, id, offset + run.start, run.end - run.start, done);
      end = at + replies.holeLength;
    } else {
      replies.writeDataHead(room.view, at, id, offset + run.start, run.end - run.start, done);
      end = dataStart + run.end;
    }
  }
  blocks.sendPart(room, segment, end - segment);
  blocks.release(room);
}

/** Alternating runs of data and zeros. A tail shorter than a step goes with what is before it, or is looked at as a whole. */
function runsOf(data: Uint8Array): Run[] {
  const runs: Run[] = [];
  let start = 0;
  let zero = false;
  for (let at = 0; at < data.length; at += STEP_BYTES) {
    const isHole = data.length - at >= STEP_BYTES && isZero(data.subarray(at, at + STEP_BYTES));
    if (at > 0 && isHole !== zero) {
      runs.push({ start, end: at, zero });
      start = at;
    }
    zero = isHole;
  }
  runs.push({ start, end: data.length, zero });
  return runs;
}
