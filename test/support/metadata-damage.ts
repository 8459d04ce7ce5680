import type { Random } from "./random.js";
import { ReferenceImage } from "./reference-image.js";

/** Random damage where it hurts: in the tables of a qcow2 image. Reads the image by itself, without the code under test. */

const OFFSET = (1n << 56n) - 512n;
const BITMAPS_EXTENSION = 0x23852875;
const CRYPT_EXTENSION = 0x0537be77;
const ZONED_EXTENSION = 0x007a6264;

/** A run of metadata in the file. `word`: bytes that belong together. */
export interface DamageTarget {
  readonly at: number;
  readonly length: number;
  readonly word: 1 | 8;
}

/** Named several times, a target is hit more often. */
function repeated(times: number, target: DamageTarget): DamageTarget[] {
  return Array.from({ length: times }, () => target);
}

/** Tables of the image: header fields, L1, L2 and refcount tables, snapshot table, bitmaps. */
export function damageTargets(bytes: Uint8Array): DamageTarget[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const clusterSize = 2 ** view.getUint32(20);
  const l1 = Number(view.getBigUint64(40));
  const reftable = Number(view.getBigUint64(48));
  const targets: DamageTarget[] = [
    ...repeated(2, { at: l1, length: view.getUint32(36) * 8, word: 8 }),
    { at: reftable, length: 64, word: 8 },
    { at: 48, length: 24, word: 1 },
  ];
  for (let index = 0; index < view.getUint32(36); index++) {
    const table = Number(view.getBigUint64(l1 + index * 8) & OFFSET);
    if (table > 0) targets.push(...repeated(4, { at: table, length: Math.min(clusterSize, 512), word: 8 }));
  }
  for (let index = 0; index < 8; index++) {
    const block = Number(view.getBigUint64(reftable + index * 8));
    if (block > 0) targets.push(...repeated(3, { at: block, length: 64, word: 1 }));
  }
  if (view.getUint32(60) > 0) targets.push(...snapshotTargets(view));
  targets.push(...extensionTargets(view));
  return targets.filter(({ at, length }) => at + length + 8 <= bytes.length);
}

function snapshotTargets(view: DataView): DamageTarget[] {
  const table = Number(view.getBigUint64(64));
  const targets: DamageTarget[] = repeated(2, { at: table, length: 80, word: 1 });
  const l1 = Number(view.getBigUint64(table));
  targets.push({ at: l1, length: Math.min(view.getUint32(table + 8) * 8, 64), word: 8 });
  return targets;
}

/** What the header extensions lead to, and those of them that say where. */
function extensionTargets(view: DataView): DamageTarget[] {
  const targets: DamageTarget[] = [];
  // A header of version 2 has none of these.
  if (view.getUint32(4) < 3) return targets;
  for (let at = view.getUint32(100); at + 8 < 1024; ) {
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    if (type === 0) break;
    if (type === BITMAPS_EXTENSION) targets.push(...bitmapTargets(view, at + 8));
    if (type === ZONED_EXTENSION) targets.push(...zoneTargets(view, at + 8, length));
    if (type === CRYPT_EXTENSION) targets.push({ at: at + 8, length, word: 1 });
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return targets;
}

function bitmapTargets(view: DataView, extension: number): DamageTarget[] {
  const directory = Number(view.getBigUint64(extension + 16));
  const table = Number(view.getBigUint64(directory));
  return [
    { at: extension, length: 24, word: 1 },
    ...repeated(2, { at: directory, length: Number(view.getBigUint64(extension + 8)), word: 1 }),
    ...repeated(2, { at: table, length: 16, word: 8 }),
  ];
}

/** Every layout has the place of the table and the number of zones somewhere in it. */
function zoneTargets(view: DataView, extension: number, length: number): DamageTarget[] {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  const zoned = new ReferenceImage(bytes).zoned;
  if (zoned === undefined) return [];
  return [
    { at: extension, length, word: 1 },
    ...repeated(4, { at: zoned.tableOffset, length: zoned.zoneCount * 8, word: 8 }),
  ];
}

/** Damages one byte or word of the targets. */
export function damageOne(bytes: Uint8Array, targets: readonly DamageTarget[], random: Random): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const { at: base, length, word } = random.pick(targets);
  const at = base + random.below(length / word) * word;
  if (word === 1 || random.chance(0.2)) {
    bytes[at] = random.chance(0.5) ? random.below(256) : (bytes[at] as number) ^ (1 << random.below(8));
    return;
  }
  const other = random.pick(targets.filter((target) => target.word === 8));
  const values = [
    (): bigint => view.getBigUint64(at) ^ (1n << BigInt(random.below(64))),
    (): bigint => view.getBigUint64(other.at + random.below(other.length / 8) * 8),
    (): bigint => BigInt(random.below(bytes.length)) | (BigInt(random.below(4)) << 62n),
    (): bigint => 0n,
  ];
  view.setBigUint64(at, random.pick(values)());
}
