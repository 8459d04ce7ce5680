import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { KiB } from "../../base/units.js";
import type { GuestData } from "./guest-data.js";
import type { MappingRun } from "./mapping.js";
import type { OldContents } from "./old-contents.js";

/** Up to this many bytes, what surrounds the data is put into one buffer with it and written at once. */
export const MERGE_LIMIT = 256 * KiB;

/** Where the subclusters of an allocating write go, and what belongs around its data. */
export interface Placement {
  /** Where the subclusters go in the guest data's storage. */
  readonly host: number;
  /** First guest subcluster. */
  readonly subcluster: number;
  /** Guest offset of the first subcluster. */
  readonly guest: number;
  /** Bytes, whole subclusters. */
  readonly length: number;
  /** Where the data starts in the subclusters. */
  readonly dataAt: number;
  /** The rest: `fresh` reads as zeros already, `zero` has to be made zero, `copy` is what `old` says. */
  readonly rest: "fresh" | "zero" | "copy";
  /** The mapping that the subclusters have had so far. */
  readonly old: MappingRun;
}

/**
 * Writes `data` into its new subclusters together with the parts before (head) and after it (tail), so that not a byte of
 * their clusters' former life shows. Fewest writes: one when all fits a buffer.
 */
export function writePlacement(
  guestData: GuestData,
  contents: OldContents,
  placement: Placement,
  data: Uint8Array,
): MaybePromise<void> {
  const { host, guest, length, dataAt, rest } = placement;
  const whole = data.length === length;
  if (whole || rest === "fresh") return guestData.write(host + dataAt, guest + dataAt, data);
  const write = length <= MERGE_LIMIT ? writeMerged : writeParts;
  return write(guestData, contents, placement, data);
}

async function writeMerged(
  guestData: GuestData,
  contents: OldContents,
  placement: Placement,
  data: Uint8Array,
): Promise<void> {
  const { host, guest, length, dataAt, rest } = placement;
  const buffer = new Uint8Array(length);
  if (rest === "copy") {
    guestData.announce?.("cow_read");
    await readOld(contents, placement, 0, buffer.subarray(0, dataAt));
    guestData.announce?.("cow_read");
    await readOld(contents, placement, dataAt + data.length, buffer.subarray(dataAt + data.length));
  }
  buffer.set(data, dataAt);
  await guestData.write(host, guest, buffer);
}

async function writeParts(
  guestData: GuestData,
  contents: OldContents,
  placement: Placement,
  data: Uint8Array,
): Promise<void> {
  const { host, guest, length, dataAt } = placement;
  const dataEnd = dataAt + data.length;
  await writeRest(guestData, contents, placement, 0, dataAt);
  await guestData.write(host + dataAt, guest + dataAt, data);
  await writeRest(guestData, contents, placement, dataEnd, length - dataEnd);
}

async function writeRest(
  guestData: GuestData,
  contents: OldContents,
  placement: Placement,
  at: number,
  length: number,
): Promise<void> {
  if (length === 0) return;
  const { host, guest, rest } = placement;
  if (rest === "zero") {
    await guestData.writeZeroes(host + at, guest + at, length);
    return;
  }
  const buffer = new Uint8Array(length);
  guestData.announce?.("cow_read");
  await readOld(contents, placement, at, buffer);
  guestData.announce?.("cow_write");
  await guestData.write(host + at, guest + at, buffer);
}

async function readOld(
  contents: OldContents,
  { old, subcluster }: Placement,
  inside: number,
  into: Uint8Array,
): Promise<void> {
  if (into.length === 0) return;
  const wait = contents.read(old, subcluster, inside, into);
  if (isPromise(wait)) await wait;
}
