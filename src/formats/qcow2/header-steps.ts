/**
 * Replaces the header of an image when more than one sector of it changes: header extensions and the backing file name can lie behind
 * the first sector, and a disk writes each sector whole or not at all, but not all of them at once.
 *
 *     step                                            | a crash in this step leaves
 *     ------------------------------------------------+------------------------------------------------------------
 *     what the new header has behind the first sector | the old header: where that would change what it says, the
 *     is written, the rest stays; flush               | backing file name goes to another place, which is still free
 *     the first sector; flush                         | the old header or the new one
 *     zeros where only the old header had something;  | the new header
 *     flush                                           |
 *
 * Where that is not safe, the names of features are left out first, in the same steps, and added again.
 * Every mixture of old and new sectors is read before anything is written, to see that it says the same.
 */

import { isZcowError } from "../../base/errors.js";
import { alignUp } from "../../base/integers.js";
import { SECTOR_SIZE } from "../../base/units.js";
import { EXTENSION } from "./extensions.js";
import { encodeFileName } from "./file-name.js";
import type { Qcow2Header, UnresolvedHeader } from "./header.js";
import { encodeHeader, withFeatureNames } from "./header-encode.js";
import { headerBytesNeeded, parseHeader } from "./header-parse.js";

/** Bytes to write at the start of the file. */
type HeaderSteps = readonly Uint8Array[];

const NAME_ALIGNMENT = 8;

/** With more sectors than these, there are too many mixtures to look at: such a header has extensions of other programs. */
const MOST_CHANGED_SECTORS = 8;

/**
 * The contents of cluster 0, `old` at first, in the order in which they must become durable; of each, only what differs needs to be
 * written. Undefined when no order is safe: the name is so long that there is no room for both, or `old` is not a sound header.
 */
export function headerSteps(
  old: Uint8Array,
  header: UnresolvedHeader | Qcow2Header,
  fileSize: number,
): HeaderSteps | undefined {
  const direct = directSteps(old, header, fileSize);
  if (direct !== undefined) return direct;
  // Names of features take most of the room, and an image can do without them for a moment.
  const short = directSteps(old, withFeatureNames(header, []), fileSize);
  const rest = short && directSteps(short.at(-1) as Uint8Array, header, fileSize);
  return rest && [...short, ...rest];
}

function directSteps(
  old: Uint8Array,
  header: UnresolvedHeader | Qcow2Header,
  fileSize: number,
): HeaderSteps | undefined {
  const before = meaningOf(old, fileSize);
  if (before === undefined) return undefined;
  const extensionsEnd = headerBytesNeeded(encodeHeader({ ...header, backingFileName: undefined }), fileSize);
  const free = alignUp(Math.max(headerBytesNeeded(old, fileSize), extensionsEnd), NAME_ALIGNMENT);
  const nameBytes = header.backingFileName === undefined ? 0 : encodeFileName(header.backingFileName).length;
  for (const nameFrom of nameBytes > 0 && free + nameBytes <= old.length ? [0, free] : [0]) {
    const target = encodeHeader(header, nameFrom);
    const after = meaningOf(target, fileSize);
    if (after === undefined) return undefined;
    const nameEnd = headerBytesNeeded(target, fileSize);
    const prepared = old.slice();
    copyTail(target, prepared, SECTOR_SIZE, extensionsEnd);
    copyTail(target, prepared, nameEnd - nameBytes, nameEnd);
    const switched = prepared.slice();
    switched.set(target.subarray(0, SECTOR_SIZE));
    const isSafe = allSay(before, old, prepared, fileSize) && allSay(after, switched, target, fileSize);
    if (isSafe) return [prepared, switched, target];
  }
  return undefined;
}

/** Copies bytes [from, to), as far as they lie behind the first sector. */
function copyTail(source: Uint8Array, target: Uint8Array, from: number, to: number): void {
  const start = Math.max(from, SECTOR_SIZE);
  if (to > start) target.set(source.subarray(start, to), start);
}

/** Whether every mixture of the sectors of `from` and `to` means `meaning`. */
function allSay(meaning: string, from: Uint8Array, to: Uint8Array, fileSize: number): boolean {
  const changed = changedSectors(from, to);
  if (changed.length > MOST_CHANGED_SECTORS) return false;
  for (let mixture = 0; mixture < 2 ** changed.length; mixture++) {
    const bytes = from.slice();
    for (const [index, sector] of changed.entries()) {
      if ((mixture & (1 << index)) === 0) continue;
      bytes.set(to.subarray(sector * SECTOR_SIZE, (sector + 1) * SECTOR_SIZE), sector * SECTOR_SIZE);
    }
    if (meaningOf(bytes, fileSize) !== meaning) return false;
  }
  return true;
}

/** Numbers of the sectors that differ. */
export function changedSectors(from: Uint8Array, to: Uint8Array): number[] {
  const changed: number[] = [];
  for (let at = 0; at < to.length; at += SECTOR_SIZE) {
    for (let byte = at; byte < at + SECTOR_SIZE; byte++) {
      if (from[byte] === to[byte]) continue;
      changed.push(at / SECTOR_SIZE);
      break;
    }
  }
  return changed;
}

/** What a header says, as text to compare; undefined when it is none. Names of features are for messages only. */
function meaningOf(bytes: Uint8Array, fileSize: number): string | undefined {
  try {
    const { featureNames: _names, extensions, ...fields } = parseHeader(bytes, { fileSize, dataFileGiven: true });
    const said = extensions
      .filter(({ type }) => type !== EXTENSION.featureNames)
      // Without its feature bit, which is in the first sector, nobody looks at it.
      .filter(({ type }) => type !== EXTENSION.bitmaps || fields.bitmaps !== undefined)
      .map(({ type, data }) => `${type} ${data.join(" ")}`)
      .toSorted();
    return JSON.stringify([fields, said], (_key, value) => (typeof value === "bigint" ? value.toString() : value));
  } catch (error) {
    if (!isZcowError(error)) throw error;
    return undefined;
  }
}
