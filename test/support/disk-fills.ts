import type { DiskFiller, FilledPlace, StorePlaces } from "../../src/block/block-device.js";
import type { Storage } from "../../src/storage/storage.js";
import { pause } from "./jittery-storage.js";
import type { Random } from "./random.js";
import { isAllZero, SECTOR } from "./sector-history.js";

/** Fills disks as threads that copy do, which write to the file by themselves: late, in any order, and not always with success. */

/** Bytes for a part of the disk. */
export interface FilledPart {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export interface Filling {
  readonly filler: DiskFiller;
  /** Where the disk is stored. */
  readonly storage: Storage;
  /** Bytes that have a place of their own. */
  readonly unit: number;
  readonly random: Random;
}

interface Piece {
  readonly at: number;
  readonly bytes: Uint8Array;
}

/** What `fillParts` says. Stores nothing, or only a part, now and then. */
export function fillRandomly(filling: Filling, parts: readonly FilledPart[]): Promise<boolean> {
  const { filler, random } = filling;
  const turn = random.chance(0.5) ? undefined : pause(random);
  const store: StorePlaces = (places) => storeRandomly(filling, places, parts);
  return filler.fillParts(
    parts.map(({ offset, bytes }) => ({ offset, length: bytes.length })),
    store,
    turn,
  );
}

async function storeRandomly(
  { storage, random, unit }: Filling,
  places: readonly FilledPlace[],
  parts: readonly FilledPart[],
): Promise<Uint8Array | undefined> {
  const answer: number[] = [];
  const pieces: Piece[] = [];
  for (const place of places) {
    const bytes = bytesOf(place, parts);
    for (let at = 0; at < place.length; at += unit) {
      const one = bytes.subarray(at, at + unit);
      const hasData = !isAllZero(one);
      answer.push(hasData ? 1 : 0);
      if (hasData) pieces.push(...piecesOf(one, place.host + at, place.isZero));
    }
  }
  const fails = random.chance(0.08);
  const stored = random.shuffled(pieces).slice(0, fails ? random.below(pieces.length + 1) : pieces.length);
  const results = await Promise.allSettled(stored.map(({ at, bytes }) => lateWrite(storage, at, bytes, random)));
  if (fails && random.chance(0.5)) throw new Error("the thread is gone");
  const isStored = !fails && results.every(({ status }) => status === "fulfilled");
  return isStored ? Uint8Array.from(answer) : undefined;
}

/** Where zeros are there already, they are left out. */
function piecesOf(bytes: Uint8Array, at: number, isZero: boolean): Piece[] {
  if (!isZero) return [{ at, bytes }];
  return Array.from({ length: bytes.length / SECTOR }, (_, index) => index * SECTOR)
    .map((from) => ({ at: at + from, bytes: bytes.subarray(from, from + SECTOR) }))
    .filter((piece) => !isAllZero(piece.bytes));
}

function bytesOf({ offset, length }: FilledPlace, parts: readonly FilledPart[]): Uint8Array {
  const part = parts.find((one) => offset >= one.offset && offset + length <= one.offset + one.bytes.length);
  if (part === undefined) throw new Error(`nobody wants to fill ${offset}+${length}`);
  return part.bytes.subarray(offset - part.offset, offset - part.offset + length);
}

async function lateWrite(storage: Storage, at: number, bytes: Uint8Array, random: Random): Promise<void> {
  await pause(random);
  await storage.write(at, bytes);
}
