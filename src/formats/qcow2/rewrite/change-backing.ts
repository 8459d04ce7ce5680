import { viewOf, writeU64 } from "../../../base/bytes.js";
import { ZcowError } from "../../../base/errors.js";
import { alignUp } from "../../../base/integers.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { SECTOR_SIZE } from "../../../base/units.js";
import type { Storage } from "../../../storage/storage.js";
import { END_MARKER_BYTES, EXTENSION, extensionsLength, withExtension } from "../extensions.js";
import { AUTOCLEAR, INCOMPATIBLE } from "../features.js";
import { encodeFileName } from "../file-name.js";
import type { Qcow2Header, RawExtension } from "../header.js";
import { encodeHeader } from "../header-encode.js";
import { FIELD } from "../header-fields.js";
import { readHeader } from "../header-read.js";
import { MAX_BACKING_NAME_BYTES } from "../limits.js";

const NAME_ALIGNMENT = 8;
/** Who writes to an image clears the autoclear features that it does not know. */
const KEPT_AUTOCLEAR = AUTOCLEAR.bitmaps | AUTOCLEAR.rawExternalData | AUTOCLEAR.session;

/** What an image is to name as its backing file. */
export interface BackingName {
  readonly name: string;
  readonly format: string;
}

/**
 * Makes the image name another backing file, or none, and makes that durable. Neither file is opened.
 *
 *     step                                           | a crash in this step leaves
 *     -----------------------------------------------+---------------------------------------------
 *     the new name is written where nothing is in    | the old name: its bytes are not touched
 *     cluster 0; flush                               |
 *     first sector: place and length of the name,    | the old name or the new one: a disk writes a
 *     format; flush                                  | sector whole or not at all
 *     the rest of cluster 0 is tidied up; flush      | the new name
 *
 * The first sector holds the format, too, in images whose format extension comes first, as all programs write it. Where an image
 * gets its first format name the extensions behind move; those that matter keep their place.
 *
 * Fails with `INVALID_ARGUMENT` for a name above 1023 bytes and images that exclude backing files, and with `QCOW2_HEADER_FULL`.
 */
export async function changeBacking(storage: Storage, to: BackingName | undefined): Promise<void> {
  const header = await readHeader(storage, { writable: true });
  requirePossible(storage, header, to);
  const { features } = header;
  const target: Qcow2Header = {
    ...header,
    features: { ...features, autoclear: features.autoclear & KEPT_AUTOCLEAR },
    backingFileName: to?.name,
    backingFormat: to?.format,
    extensions: to === undefined ? header.extensions : withFormat(header.extensions, to.format),
  };
  await putHeader(storage, target);
  if (to !== undefined || header.backingFormat === undefined || !mayMove(header.extensions)) return;
  await putHeader(storage, {
    ...target,
    extensions: withExtension(header.extensions, EXTENSION.backingFormat, undefined),
  });
}

function requirePossible(storage: Storage, header: Qcow2Header, to: BackingName | undefined): void {
  if (to === undefined) return;
  const data = { path: storage.name, option: "backing_file", value: to.name };
  if (encodeFileName(to.name).length > MAX_BACKING_NAME_BYTES) {
    throw new ZcowError(
      "INVALID_ARGUMENT",
      `The name of the backing file is longer than ${MAX_BACKING_NAME_BYTES} bytes`,
      {
        data: { ...data, limit: MAX_BACKING_NAME_BYTES },
        stockText: "Invalid argument",
      },
    );
  }
  const isRaw =
    (header.features.autoclear & AUTOCLEAR.rawExternalData) !== 0n &&
    (header.features.incompatible & INCOMPATIBLE.externalData) !== 0n;
  if (!isRaw) return;
  throw new ZcowError(
    "INVALID_ARGUMENT",
    `${storage.name} has a raw external data file, behind which nothing can show through`,
    { data, stockText: "Invalid argument" },
  );
}

/** Extensions of which a torn copy does no harm: the format of a backing file, and names of features. */
function mayMove(extensions: readonly RawExtension[]): boolean {
  return extensions.every(({ type }) => type === EXTENSION.backingFormat || type === EXTENSION.featureNames);
}

function withFormat(extensions: readonly RawExtension[], format: string): readonly RawExtension[] {
  const data = new TextEncoder().encode(format);
  const isThere = extensions.some(({ type }) => type === EXTENSION.backingFormat);
  if (isThere || !mayMove(extensions)) return withExtension(extensions, EXTENSION.backingFormat, data);
  return [{ type: EXTENSION.backingFormat, data }, ...extensions];
}

/** Where a name lies in cluster 0: [start, end), in bytes. */
interface Place {
  readonly start: number;
  readonly end: number;
}

/**
 * Writes `header` so that a crash leaves the old one or the new one: bytes that the header in force does not use are written
 * first, and one sector puts them in force. Where that is impossible it is one write, as any other change of a header.
 */
async function putHeader(storage: Storage, header: Qcow2Header): Promise<void> {
  const final = encodeHeader(header);
  const old = new Uint8Array(final.length);
  const wait = storage.read(0, old);
  if (isPromise(wait)) await wait;
  const home = placeOf(final);
  const place = freePlace(home, placeOf(old), final.length);
  const areaEnd = Math.min(final.length, header.headerLength + extensionsLength(header.extensions) + END_MARKER_BYTES);
  if (place === undefined || !isEqual(withName(final, final, place), old, SECTOR_SIZE, areaEnd)) {
    await write(storage, final, 0, final.length);
    return;
  }
  const moved = withName(final, final, place);
  await write(storage, withName(old, final, place), SECTOR_SIZE, final.length);
  await write(storage, moved, 0, SECTOR_SIZE);
  if (place.start !== home.start) {
    if (overlap(place, home)) return;
    // To where every program puts it, so that the next change of the header does not have to move it.
    await write(storage, moved, SECTOR_SIZE, final.length);
    await write(storage, final, 0, SECTOR_SIZE);
  }
  await write(storage, final, SECTOR_SIZE, final.length);
}

/** Where the header `bytes` has its backing name; empty when there is none. */
function placeOf(bytes: Uint8Array): Place {
  const view = viewOf(bytes);
  const start = Number(view.getBigUint64(FIELD.backingFileOffset));
  return start === 0 ? { start: 0, end: 0 } : { start, end: start + view.getUint32(FIELD.backingFileSize) };
}

/** Where the name of `home` can be written while the one at `old` is in force: at home, or behind it; undefined when there is no room. */
function freePlace(home: Place, old: Place, clusterSize: number): Place | undefined {
  if (!overlap(home, old)) return home;
  const start = alignUp(old.end, NAME_ALIGNMENT);
  const end = start + home.end - home.start;
  return end <= clusterSize ? { start, end } : undefined;
}

function overlap(a: Place, b: Place): boolean {
  return a.start < b.end && b.start < a.end;
}

/** A copy of `bytes` with the name that the header `named` has at `place`. Of `named` itself, which then says so, too. */
function withName(bytes: Uint8Array, named: Uint8Array, place: Place): Uint8Array {
  const copy = bytes.slice();
  const { start, end } = placeOf(named);
  copy.set(named.subarray(start, end), place.start);
  if (bytes === named && place.end > 0) writeU64(viewOf(copy), FIELD.backingFileOffset, place.start);
  return copy;
}

function isEqual(a: Uint8Array, b: Uint8Array, from: number, to: number): boolean {
  return to <= from || Buffer.compare(a.subarray(from, to), b.subarray(from, to)) === 0;
}

/** Durable when it resolves. */
async function write(storage: Storage, bytes: Uint8Array, from: number, to: number): Promise<void> {
  if (from >= to) return;
  const written = storage.write(from, bytes.subarray(from, to));
  if (isPromise(written)) await written;
  const flushed = storage.flush();
  if (isPromise(flushed)) await flushed;
}
