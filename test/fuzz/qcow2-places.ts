import type { MemoryStorage } from "../../src/storage/memory-storage.js";
import type { Random } from "../support/random.js";
import { type Damage, type FuzzImage, readNow } from "./fuzz-image.js";
import type { Field, Place, PlacedImage, Table } from "./places.js";
import { HEADER_FIELDS } from "./qcow2-header-fields.js";

/** Finds the structures of a good qcow2 image, with the offsets of the format only. */

const EXTENSION = {
  backingFormat: 0xe2792aca,
  bitmaps: 0x23852875,
  crypto: 0x0537be77,
  dataFile: 0x44415441,
  zoned: 0x007a6264,
};
const OFFSET_MASK = 0x00ff_ffff_ffff_fe00n;
const COMPRESSED = 1n << 62n;

/** How much of the damage goes where. */
export interface Weights {
  readonly header?: number;
  readonly extensions?: number;
  readonly l1?: number;
  readonly l2?: number;
  readonly refcounts?: number;
  readonly snapshots?: number;
  readonly bitmaps?: number;
  readonly luks?: number;
  readonly zones?: number;
  readonly compressed?: number;
  readonly names?: number;
}

class Parts {
  readonly storage: MemoryStorage;
  readonly clusterSize: number;
  readonly stride: 8 | 16;
  readonly extensions: { readonly type: number; readonly at: number; readonly length: number }[] = [];
  readonly places: Place[] = [];
  readonly structures = new Set<number>([0]);
  readonly #file: string;
  readonly #weights: Weights;
  readonly #compressed: number[] = [];

  constructor(file: string, storage: MemoryStorage, weights: Weights) {
    this.#file = file;
    this.storage = storage;
    this.#weights = weights;
    this.clusterSize = 2 ** this.u32(20);
    this.stride = this.u32(4) === 3 && (this.u64(72) & 16n) !== 0n ? 16 : 8;
    this.#findExtensions();
  }

  u16(at: number): number {
    return this.#view(at, 2).getUint16(0);
  }
  u32(at: number): number {
    return this.#view(at, 4).getUint32(0);
  }
  u64(at: number): bigint {
    return this.#view(at, 8).getBigUint64(0);
  }
  #view(at: number, length: number): DataView {
    const bytes = new Uint8Array(length);
    bytes.set(readNow(this.storage, at, length));
    return new DataView(bytes.buffer);
  }

  #findExtensions(): void {
    for (let at = this.u32(4) === 3 ? this.u32(100) : 72; at + 8 <= this.clusterSize; ) {
      const found = { at: at + 8, type: this.u32(at), length: this.u32(at + 4) };
      if (found.type === 0) return;
      this.extensions.push(found);
      at += 8 + Math.ceil(found.length / 8) * 8;
    }
  }

  extension(type: number): number | undefined {
    return this.extensions.find((found) => found.type === type)?.at;
  }

  fields(weight: number, fields: readonly Field[]): void {
    if (weight > 0 && fields.length > 0) this.places.push({ kind: "fields", weight, file: this.#file, fields });
  }
  table(weight: number, table: Table): void {
    this.structures.add(table.at);
    if (weight > 0 && table.entries > 0) this.places.push({ kind: "table", weight, file: this.#file, table });
  }
  bytes(weight: number, name: string, at: number, length: number): void {
    if (weight > 0 && length > 0) this.places.push({ kind: "bytes", weight, file: this.#file, name, at, length });
  }

  findAll(): void {
    const weights = this.#weights;
    const version3 = this.u32(4) === 3;
    this.fields(
      weights.header ?? 6,
      HEADER_FIELDS.filter(({ at }) => version3 || at < 72),
    );
    for (const { at, length, type } of this.extensions) {
      const share = weights.extensions ?? 2;
      this.fields(share, [
        { name: `extension ${type.toString(16)} type`, at: at - 8, width: 4 },
        { name: `extension ${type.toString(16)} length`, at: at - 4, width: 4 },
      ]);
      this.bytes(share, `extension ${type.toString(16)}`, at, length);
    }
    this.mapping("active", Number(this.u64(40)), this.u32(36));
    this.#refcounts(weights.refcounts ?? 4);
    this.#snapshots(weights.snapshots ?? 0);
    this.#bitmaps(weights.bitmaps ?? 0);
    this.#luks(weights.luks ?? 0);
    this.#zones(weights.zones ?? 0);
    for (const at of this.#compressed.slice(0, 16)) {
      this.bytes(weights.compressed ?? 0, "compressed data", at, 24);
      this.bytes(weights.compressed ?? 0, "compressed data", at, 300);
    }
  }

  mapping(owner: string, at: number, entries: number): void {
    const { l1 = 4, l2 = 8 } = this.#weights;
    this.table(l1, { name: `${owner} L1`, at, entries, width: 8, stride: 8 });
    for (let index = 0; index < Math.min(entries, 16); index++) {
      const table = Number(this.u64(at + index * 8) & OFFSET_MASK);
      if (table === 0) continue;
      const count = this.clusterSize / this.stride;
      this.table(l2, { name: `${owner} L2 ${index}`, at: table, entries: count, width: 8, stride: this.stride });
      for (let entry = 0; entry < count; entry++) {
        const found = this.u64(table + entry * this.stride);
        if ((found & COMPRESSED) === 0n) continue;
        const offsetBits = 62n - BigInt(Math.log2(this.clusterSize) - 8);
        this.#compressed.push(Number(found & ((1n << offsetBits) - 1n)));
      }
    }
  }

  #refcounts(weight: number): void {
    const at = Number(this.u64(48));
    const entries = (this.u32(56) * this.clusterSize) / 8;
    this.table(weight, { name: "refcount table", at, entries, width: 8, stride: 8 });
    for (let index = 0; index < Math.min(entries, 64); index++) {
      const block = Number(this.u64(at + index * 8) & OFFSET_MASK);
      if (block === 0) continue;
      this.structures.add(block);
      this.bytes(weight, "refcount block", block, 128);
    }
  }

  #snapshots(weight: number): void {
    let at = Number(this.u64(64));
    const count = this.u32(60);
    if (count > 0) this.structures.add(at);
    for (let index = 0; index < count; index++) {
      at = Math.ceil(at / 8) * 8;
      const extra = this.u32(at + 36);
      const names = this.u16(at + 12) + this.u16(at + 14);
      const field = (name: string, offset: number, width: Field["width"]): Field => ({
        name: `snapshot ${index} ${name}`,
        at: at + offset,
        width,
      });
      this.fields(weight, [
        field("l1_table_offset", 0, 8),
        field("l1_size", 8, 4),
        field("id_str_size", 12, 2),
        field("name_size", 14, 2),
        field("date_sec", 16, 4),
        field("date_nsec", 20, 4),
        field("vm_clock", 24, 8),
        field("vm_state_size", 32, 4),
        field("extra_data_size", 36, 4),
        ...Array.from({ length: extra / 8 }, (_, word) => field(`extra +${word * 8}`, 40 + word * 8, 8)),
      ]);
      this.bytes(weight / 2, `snapshot ${index} id and name`, at + 40 + extra, names);
      this.mapping(`snapshot ${index}`, Number(this.u64(at)), this.u32(at + 8));
      at += 40 + extra + names;
    }
  }

  #bitmaps(weight: number): void {
    const data = this.extension(EXTENSION.bitmaps);
    if (data === undefined) return;
    const field = (name: string, at: number, width: Field["width"]): Field => ({ name, at, width });
    this.fields(weight, [
      field("nb_bitmaps", data, 4),
      field("bitmaps reserved", data + 4, 4),
      field("bitmap_directory_size", data + 8, 8),
      field("bitmap_directory_offset", data + 16, 8),
    ]);
    let at = Number(this.u64(data + 16));
    this.structures.add(at);
    for (let index = 0; index < this.u32(data); index++) {
      const names = this.u16(at + 18);
      const extra = this.u32(at + 20);
      const own = (name: string, offset: number, width: Field["width"]): Field =>
        field(`bitmap ${index} ${name}`, at + offset, width);
      this.fields(weight, [
        own("table_offset", 0, 8),
        own("table_size", 8, 4),
        own("flags", 12, 4),
        own("type", 16, 1),
        own("granularity_bits", 17, 1),
        own("name_size", 18, 2),
        own("extra_data_size", 20, 4),
      ]);
      this.bytes(weight / 2, `bitmap ${index} name`, at + 24 + extra, names);
      const [table, entries] = [Number(this.u64(at)), this.u32(at + 8)];
      this.table(weight, { name: `bitmap ${index} table`, at: table, entries, width: 8, stride: 8 });
      for (let entry = 0; entry < Math.min(entries, 4); entry++) {
        const place = Number(this.u64(table + entry * 8) & OFFSET_MASK);
        if (place !== 0) this.structures.add(place);
      }
      at += Math.ceil((24 + extra + names) / 8) * 8;
    }
  }

  #luks(weight: number): void {
    const data = this.extension(EXTENSION.crypto);
    if (data === undefined || weight === 0) return;
    const field = (name: string, at: number, width: Field["width"]): Field => ({ name, at, width });
    this.fields(weight, [field("crypto offset", data, 8), field("crypto length", data + 8, 8)]);
    const at = Number(this.u64(data));
    this.structures.add(at);
    this.fields(weight, [
      field("LUKS magic", at, 4),
      field("LUKS version", at + 6, 2),
      field("payload-offset", at + 104, 4),
      field("key-bytes", at + 108, 4),
    ]);
    this.bytes(weight, "LUKS cipher names", at + 8, 96);
    // Not so far that sixteen bytes reach into the iterations: those have their own damage.
    this.bytes(weight / 2, "LUKS digest", at + 112, 36);
    this.places.push({ kind: "own", weight, file: this.#file, damage: (random) => this.#iterations(random, at) });
    for (let slot = 0; slot < 8; slot++) {
      const start = at + 208 + slot * 48;
      this.fields(weight / 4, [
        field(`slot ${slot} state`, start, 4),
        field(`slot ${slot} key-material-offset`, start + 40, 4),
        field(`slot ${slot} stripes`, start + 44, 4),
      ]);
      this.bytes(weight / 8, `slot ${slot} salt`, start + 8, 32);
    }
    this.bytes(weight / 2, "slot 0 stripes", at + 4096, this.u32(at + 108) * 4000);
    const state = Uint8Array.of(0x00, 0xac, 0x71, 0xf3);
    this.places.push({
      kind: "own",
      weight,
      file: this.#file,
      damage: (random) => {
        const slot = random.between(1, 7);
        const start = at + 208 + slot * 48;
        const writes = [
          { file: this.#file, at: start, bytes: state },
          { file: this.#file, at: start + 4, bytes: Uint8Array.of(0, 0, 4, 0) },
        ];
        return { what: `slot ${slot} made active`, writes };
      },
    });
  }

  /** Counts that are refused, or done in a moment: what lies between is a minute of honest work. */
  #iterations(random: Random, header: number): Damage {
    const count = random.pick([0, 1, 2, 999, 20_000, 200_000_001, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]);
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, count);
    const at = header + random.pick([164, 212, 212 + 48 * random.below(8)]);
    return { what: `LUKS iterations at ${at} = ${count}`, writes: [{ file: this.#file, at, bytes }] };
  }

  #zones(weight: number): void {
    const data = this.extension(EXTENSION.zoned);
    if (data === undefined || weight === 0) return;
    const field = (at: number, width: Field["width"]): Field => ({ name: `zoned +${at}`, at: data + at, width });
    this.fields(weight, [
      field(0, 1),
      field(4, 4),
      field(8, 8),
      field(16, 8),
      field(24, 8),
      field(32, 4),
      field(36, 4),
      field(40, 4),
    ]);
    const at = Number(this.u64(data + 24));
    if (at > 0 && at < this.storage.size())
      this.table(weight, { name: "write pointer", at, entries: 16, width: 8, stride: 8 });
  }
}

/** Names that point at the image itself, at nothing, at other kinds of files, or are no names. */
const HOSTILE_NAMES: readonly string[] = [
  "overlay.qcow2",
  "json-overlay.qcow2",
  "middle.qcow2",
  "base.raw",
  "missing.raw",
  ".",
  "..",
  "",
  "/dev/null",
  "/dev/zero",
  "/proc/self/mem",
  "file:base.raw",
  "file:overlay.qcow2",
  "host_device:/dev/null",
  "nbd+unix:///none?socket=/nowhere",
  "http://127.0.0.1:1/x",
  "json:",
  "json:{",
  "json:[]",
  "json:null",
  "json:{}",
  'json:{"driver":"raw","file.filename":"base.raw"}',
  'json:{"driver":"qcow2","file":{"driver":"file","filename":"overlay.qcow2"}}',
  'json:{"driver":"qcow2","file":{"driver":"nbd","host":"127.0.0.1","port":"1"}}',
  'json:{"file":{"file":{"file":{"filename":"base.raw"}}}}',
  'json:{"driver":"qcow2","backing":{"driver":"raw"},"file":{"filename":"middle.qcow2"}}',
  'json:{"driver":"raw","offset":512,"file":{"filename":"base.raw"}}',
  `json:${"[".repeat(900)}`,
  `json:${'{"a":'.repeat(180)}`,
  'json:{"__proto__":{"x":1},"driver":"raw","file.filename":"base.raw"}',
  "a".repeat(1023),
  "../".repeat(300),
  "base.raw\0.qcow2",
  "\u0001\u0002\uffff",
];
const HOSTILE_FORMATS: readonly string[] = [
  "raw",
  "qcow2",
  "vmdk",
  "vhdx",
  "vdi",
  "vpc",
  "",
  "qcow",
  "nonsense",
  "json:",
  "../raw",
];

function nameDamage(
  file: string,
  at: number,
  room: number,
  texts: readonly string[],
  lengthAt: number,
): (random: Random) => Damage {
  return (random) => {
    const text = random.pick(texts);
    const bytes = new TextEncoder().encode(text).subarray(0, room);
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, bytes.length);
    return {
      what: `${file}: name '${text.slice(0, 60)}'`,
      writes: [
        { file, at, bytes },
        { file, at: lengthAt, bytes: length },
      ],
    };
  };
}

function names(parts: Parts, file: string, weight: number): void {
  const at = Number(parts.u64(8));
  if (at !== 0) {
    const room = Math.min(1023, parts.clusterSize - at);
    parts.places.push({ kind: "own", weight, file, damage: nameDamage(file, at, room, HOSTILE_NAMES, 16) });
  }
  for (const { type, at: data } of parts.extensions) {
    if (type === EXTENSION.dataFile)
      parts.places.push({ kind: "own", weight, file, damage: nameDamage(file, data, 400, HOSTILE_NAMES, data - 4) });
    if (type === EXTENSION.backingFormat)
      parts.places.push({
        kind: "own",
        weight: weight / 2,
        file,
        damage: nameDamage(file, data, 16, HOSTILE_FORMATS, data - 4),
      });
  }
}

/** What can be damaged in a qcow2 image, with the files that it stands on. */
export function placeQcow2(image: FuzzImage, weights: Weights): PlacedImage {
  const structures = new Set<number>();
  const places: Place[] = [];
  let unit = 512;
  for (const [file, storage] of image.files) {
    if (storage.size() < 112 || !isQcow2(storage)) continue;
    const parts = new Parts(file, storage, weights);
    parts.findAll();
    if (weights.names !== undefined) names(parts, file, weights.names);
    places.push(...parts.places);
    if (file === image.main) unit = parts.clusterSize;
    for (const structure of parts.structures) structures.add(structure);
  }
  // Weights may be halves.
  return {
    ...image,
    places: places.map((place) => ({ ...place, weight: Math.max(1, Math.round(place.weight)) })),
    structures: [...structures],
    unit,
  };
}

function isQcow2(storage: MemoryStorage): boolean {
  return Buffer.from(readNow(storage, 0, 4)).toString("latin1") === "QFI\xfb";
}
