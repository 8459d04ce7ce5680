import type { Random } from "../support/random.js";
import type { Field } from "./places.js";
import { HEADER_FIELDS } from "./qcow2-header-fields.js";

/**
 * CoreDamage that knows where the structures of a qcow2 image are. Reads the good image with fixed offsets only, so it
 * works on any image the builder of the fuzz run makes.
 */

export interface CoreDamage {
  /** What was hit, for the report. */
  readonly what: string;
  /** Bytes to write at `at`; or, without bytes, the new length of the file. */
  readonly at: number;
  readonly bytes: Uint8Array | undefined;
}

const ANY_HEADER_FIELD: readonly Field[] = [{ name: "magic", at: 0, width: 4 }, ...HEADER_FIELDS];

const EXTENSION_MAGICS = [0, 0xe2792aca, 0x6803f857, 0x23852875, 0x0537be77, 0x44415441, 0x007a6264, 0x12345678];

/** Where the parts of a good image are. */
interface Parts {
  readonly view: DataView;
  readonly clusterSize: number;
  readonly extensions: { readonly at: number; readonly length: number; readonly type: number }[];
  readonly l1: number;
  readonly l1Entries: number;
  readonly l2Tables: number[];
  readonly refcountTable: number;
  readonly refcountBlocks: number[];
  readonly pointerTable: number | undefined;
}

function findParts(good: Uint8Array, pointerTable: number | undefined): Parts {
  const view = new DataView(good.buffer, good.byteOffset, good.byteLength);
  const offset = (at: number, mask: bigint): number => Number(view.getBigUint64(at) & mask);
  const clusterSize = 2 ** view.getUint32(20);
  const l1 = offset(40, ~0n);
  const l1Entries = view.getUint32(36);
  const refcountTable = offset(48, ~0n);
  const tables = (at: number, count: number): number[] =>
    Array.from({ length: count }, (_, i) => offset(at + i * 8, 0x00ff_ffff_ffff_fe00n)).filter((found) => found !== 0);
  const refcountEntries = (view.getUint32(56) * clusterSize) / 8;
  const extensions: { at: number; length: number; type: number }[] = [];
  for (let at = view.getUint32(4) === 3 ? view.getUint32(100) : 72; at + 8 <= clusterSize; ) {
    const found = { at, type: view.getUint32(at), length: view.getUint32(at + 4) };
    extensions.push(found);
    if (found.type === 0) break;
    at += 8 + Math.ceil(found.length / 8) * 8;
  }
  return {
    view,
    clusterSize,
    extensions,
    l1,
    l1Entries,
    l2Tables: tables(l1, Math.min(l1Entries, 4096)),
    refcountTable,
    refcountBlocks: tables(refcountTable, Math.min(refcountEntries, 4096)),
    pointerTable,
  };
}

/** Numbers at which arithmetic and limits break, seen from this image. */
function interesting(random: Random, parts: Parts, old: bigint): bigint {
  const cluster = BigInt(parts.clusterSize);
  const fileSize = BigInt(parts.view.byteLength);
  const structures = [0, parts.l1, parts.refcountTable, ...parts.l2Tables, ...parts.refcountBlocks];
  const pool = [
    () => BigInt(random.pick([0, 1, 2, 3, 7, 8, 9, 21, 22, 31, 63, 64, 512, 513, 4096])),
    () => (1n << BigInt(random.below(64))) - BigInt(random.below(2)),
    () => old + BigInt(random.pick([-1, 1, 2, 8, 511, 512])),
    () => old + cluster * BigInt(random.between(-3, 3)),
    () => old ^ (1n << BigInt(random.below(64))),
    () => BigInt(random.pick(structures)),
    () => BigInt(random.pick(structures)) | (1n << 63n),
    () => cluster * BigInt(random.below(Number(fileSize / cluster) + 2)) + (random.chance(0.5) ? 1n << 63n : 0n),
    () => fileSize + BigInt(random.pick([-512, -1, 0, 1, 512, parts.clusterSize, 1 << 30])),
    () => (BigInt(random.u32()) << 32n) | BigInt(random.u32()),
    () => (1n << 53n) + BigInt(random.between(-1, 1)),
    () => (1n << 62n) | (BigInt(random.u32()) << 20n),
  ];
  return BigInt.asUintN(64, random.pick(pool)());
}

function setField(random: Random, parts: Parts, field: Field): CoreDamage {
  const bytes = new Uint8Array(field.width);
  const view = new DataView(bytes.buffer);
  const inside = field.at + field.width <= parts.view.byteLength;
  let old = 0n;
  if (inside) {
    for (let i = 0; i < field.width; i++) old = (old << 8n) | BigInt(parts.view.getUint8(field.at + i));
  }
  const value = interesting(random, parts, old);
  if (field.width === 8) view.setBigUint64(0, value);
  else if (field.width === 4) view.setUint32(0, Number(value & 0xffff_ffffn));
  else if (field.width === 2) view.setUint16(0, Number(value & 0xffffn));
  else view.setUint8(0, Number(value & 0xffn));
  return { what: `${field.name} = 0x${Buffer.from(bytes).toString("hex")}`, at: field.at, bytes };
}

/** An entry of a table of 8-byte entries; mostly near the start, where this small image has its entries. */
function tableEntry(random: Random, parts: Parts, name: string, at: number, entries: number): CoreDamage {
  const index = random.chance(0.7) ? random.below(Math.min(entries, 24)) : random.below(entries);
  return setField(random, parts, { name: `${name}[${index}]`, at: at + index * 8, width: 8 });
}

function extensionDamage(random: Random, parts: Parts): CoreDamage {
  const target = random.pick(parts.extensions);
  const kind = random.weighted({ type: 3, length: 3, data: 8, insert: 2 });
  if (kind === "type") {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, random.pick(EXTENSION_MAGICS));
    return { what: `extension type at ${target.at}`, at: target.at, bytes };
  }
  if (kind === "length") {
    return setField(random, parts, { name: "extension length", at: target.at + 4, width: 4 });
  }
  if (kind === "insert" || target.length === 0) {
    const bytes = new Uint8Array(8 + random.below(64));
    const view = new DataView(bytes.buffer);
    for (let i = 8; i < bytes.length; i++) bytes[i] = random.chance(0.5) ? 0 : random.below(256);
    view.setUint32(0, random.pick(EXTENSION_MAGICS));
    view.setUint32(4, random.pick([bytes.length - 8, 44, 48, 56, 32, 24, 16]));
    return { what: `inserted extension at ${target.at}`, at: target.at, bytes };
  }
  const width = random.pick([1, 4, 8] as const);
  const within = Math.floor(random.below(Math.max(1, target.length)) / width) * width;
  return setField(random, parts, { name: `extension data +${within}`, at: target.at + 8 + within, width });
}

function oneDamage(random: Random, parts: Parts): CoreDamage {
  const { clusterSize } = parts;
  const kind = random.weighted({
    header: 30,
    extension: 12,
    l1: 12,
    l2: 15,
    refcountTable: 8,
    refcountBlock: 10,
    pointers: 15,
    truncate: 4,
    // Compressed data is most of what else there is.
    bytes: 8,
  });
  switch (kind) {
    case "header":
      return setField(random, parts, random.pick(ANY_HEADER_FIELD));
    case "extension":
      return extensionDamage(random, parts);
    case "l1":
      return tableEntry(random, parts, "L1", parts.l1, Math.max(1, parts.l1Entries));
    case "l2":
      if (parts.l2Tables.length === 0) break;
      return tableEntry(random, parts, "L2", random.pick(parts.l2Tables), clusterSize / 8);
    case "refcountTable":
      return tableEntry(random, parts, "refcount table", parts.refcountTable, clusterSize / 8);
    case "refcountBlock": {
      const at = random.pick(parts.refcountBlocks) + random.below(64);
      return {
        what: `refcount block byte at ${at}`,
        at,
        bytes: Uint8Array.of(random.pick([0, 1, 2, 255, random.below(256)])),
      };
    }
    case "pointers":
      if (parts.pointerTable === undefined) break;
      return tableEntry(random, parts, "write pointer", parts.pointerTable, 16);
    case "truncate": {
      const length = random.below(parts.view.byteLength);
      const at = random.chance(0.5) ? length - (length % clusterSize) : length;
      return { what: `file cut to ${at} bytes`, at, bytes: undefined };
    }
    case "bytes":
      break;
  }
  const at = random.below(parts.view.byteLength);
  const bytes = Uint8Array.from({ length: random.between(1, 16) }, () => random.below(256));
  return { what: `${bytes.length} random bytes at ${at}`, at, bytes };
}

/** One to four damages, for the good image given. */
export function randomCoreDamages(random: Random, good: Uint8Array, pointerTable: number | undefined): CoreDamage[] {
  const parts = findParts(good, pointerTable);
  const count = random.pick([1, 1, 1, 2, 2, 3, 4]);
  return Array.from({ length: count }, () => oneDamage(random, parts));
}

export function applyCoreDamages(good: Uint8Array, damages: readonly CoreDamage[]): Uint8Array {
  let bytes = good.slice();
  for (const damage of damages) {
    if (damage.bytes === undefined) bytes = bytes.slice(0, damage.at);
    else if (damage.at < bytes.length) bytes.set(damage.bytes.subarray(0, bytes.length - damage.at), damage.at);
  }
  return bytes;
}
