import { alignDown } from "../../../base/integers.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { MiB, SECTOR_SIZE } from "../../../base/units.js";
import type { Storage } from "../../../storage/storage.js";
import type { GuestData } from "../guest-data.js";
import type { Moves } from "./moves.js";

/** Copied at once. */
const COPY_BYTES = 2 * MiB;

/** Bytes that keep their order on the way. */
interface Stretch {
  readonly from: number;
  readonly to: number;
  length: number;
  readonly isGuestData: boolean;
}

/**
 * Copies everything to its new place. `encrypted`: guest data whose encryption depends on where they lie; they are written anew
 * through it.
 */
export async function copyMoves(
  storage: Storage,
  clusterSize: number,
  moves: Moves,
  encrypted: GuestData | undefined,
): Promise<void> {
  const buffer = new Uint8Array(Math.max(COPY_BYTES, clusterSize));
  for (const stretch of [...clusterStretches(moves, clusterSize), ...extentStretches(moves)]) {
    const through = stretch.isGuestData ? encrypted : undefined;
    for (let done = 0; done < stretch.length; done += buffer.length) {
      const bytes = buffer.subarray(0, Math.min(buffer.length, stretch.length - done));
      await copy(storage, through, stretch.from + done, stretch.to + done, bytes);
    }
  }
}

async function copy(
  storage: Storage,
  encrypted: GuestData | undefined,
  from: number,
  to: number,
  bytes: Uint8Array,
): Promise<void> {
  // A cipher numbered by host offsets takes no notice of the guest's.
  const read = encrypted === undefined ? storage.read(from, bytes) : encrypted.read(from, from, bytes);
  if (isPromise(read)) await read;
  const written = encrypted === undefined ? storage.write(to, bytes) : encrypted.write(to, to, bytes);
  if (isPromise(written)) await written;
}

function clusterStretches({ clusters }: Moves, clusterSize: number): Stretch[] {
  const stretches: Stretch[] = [];
  for (const [cluster, { to, kind }] of [...clusters].toSorted(([a], [b]) => a - b)) {
    append(stretches, {
      from: cluster * clusterSize,
      to: to * clusterSize,
      length: clusterSize,
      isGuestData: kind === "guest data",
    });
  }
  return stretches;
}

/** Compressed data by whole sectors, which neighbours may share. */
function extentStretches({ extents }: Moves): Stretch[] {
  const stretches: Stretch[] = [];
  for (const [offset, { to, length }] of [...extents].toSorted(([a], [b]) => a - b)) {
    const within = offset % SECTOR_SIZE;
    append(stretches, {
      from: alignDown(offset, SECTOR_SIZE),
      to: to - within,
      length: length + within,
      isGuestData: false,
    });
  }
  return stretches;
}

function append(stretches: Stretch[], next: Stretch): void {
  const last = stretches.at(-1);
  const follows =
    last !== undefined &&
    last.isGuestData === next.isGuestData &&
    next.from <= last.from + last.length &&
    next.to - last.to === next.from - last.from;
  if (follows) last.length = Math.max(last.length, next.from + next.length - last.from);
  else stretches.push(next);
}
