import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { KiB } from "../../base/units.js";
import type { Storage } from "../../storage/storage.js";

/** Up to this many bytes, what surrounds the data is put into one buffer with it and written at once. */
const MERGE_LIMIT = 256 * KiB;

/** The host clusters of an allocating write, and what belongs around its data. */
export interface Placement {
  /** File offset of the clusters. */
  readonly host: number;
  /** Bytes, whole clusters. */
  readonly length: number;
  /** Where the data starts in the clusters. */
  readonly dataAt: number;
  /** The rest: `fresh` reads as zeros already, `zero` has to be made zero, `copy` comes from the old clusters. */
  readonly rest: "fresh" | "zero" | "copy";
  /** File offset of the old clusters, for `copy`. */
  readonly copyFrom: number;
}

/**
 * Writes `data` into its new clusters together with the parts before (head) and after it (tail), so that not a byte of
 * the clusters' former life shows. Fewest writes: one when all fits a buffer.
 */
export function writePlacement(storage: Storage, placement: Placement, data: Uint8Array): MaybePromise<void> {
  const { host, length, dataAt, rest } = placement;
  const whole = data.length === length;
  if (whole || rest === "fresh") return storage.write(host + dataAt, data);
  return length <= MERGE_LIMIT ? writeMerged(storage, placement, data) : writeParts(storage, placement, data);
}

async function writeMerged(storage: Storage, placement: Placement, data: Uint8Array): Promise<void> {
  const { host, length, dataAt, rest, copyFrom } = placement;
  const buffer = new Uint8Array(length);
  if (rest === "copy") {
    await readInto(storage, copyFrom, buffer.subarray(0, dataAt));
    await readInto(storage, copyFrom + dataAt + data.length, buffer.subarray(dataAt + data.length));
  }
  buffer.set(data, dataAt);
  await storage.write(host, buffer);
}

async function writeParts(storage: Storage, placement: Placement, data: Uint8Array): Promise<void> {
  const { length, dataAt } = placement;
  const dataEnd = dataAt + data.length;
  await writeRest(storage, placement, 0, dataAt);
  await storage.write(placement.host + dataAt, data);
  await writeRest(storage, placement, dataEnd, length - dataEnd);
}

async function writeRest(storage: Storage, placement: Placement, at: number, length: number): Promise<void> {
  if (length === 0) return;
  if (placement.rest === "zero") {
    await storage.writeZeroes(placement.host + at, length);
    return;
  }
  const buffer = new Uint8Array(length);
  await readInto(storage, placement.copyFrom + at, buffer);
  await storage.write(placement.host + at, buffer);
}

async function readInto(storage: Storage, at: number, into: Uint8Array): Promise<void> {
  if (into.length === 0) return;
  const wait = storage.read(at, into);
  if (isPromise(wait)) await wait;
}
