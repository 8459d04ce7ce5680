import { crc32c } from "../../src/codec/crc32c.js";
import type { MemoryStorage } from "../../src/storage/memory-storage.js";
import type { Random } from "../support/random.js";
import { type Damage, type FuzzImage, readNow } from "./fuzz-image.js";
import type { Field, Place, PlacedImage } from "./places.js";

/** Where the structures of the disks of other virtual machines are, by their published layouts. */

const KIB = 1024;
const SECTOR = 512;

class Reader {
  readonly storage: MemoryStorage;
  constructor(image: FuzzImage, file = image.main) {
    const storage = image.files.get(file);
    if (storage === undefined) throw new Error(`there is no file ${file}`);
    this.storage = storage;
  }
  get size(): number {
    return this.storage.size();
  }
  u32(at: number, little: boolean): number {
    return viewOf(readNow(this.storage, at, 4)).getUint32(0, little);
  }
  u64(at: number, little: boolean): number {
    return Number(viewOf(readNow(this.storage, at, 8)).getBigUint64(0, little));
  }
  text(at: number, length: number): string {
    return Buffer.from(readNow(this.storage, at, length)).toString("latin1");
  }
}

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function fieldsAt(
  base: number,
  little: boolean,
  list: Readonly<Record<string, readonly [at: number, width: Field["width"]]>>,
): Field[] {
  return Object.entries(list).map(([name, [at, width]]) => ({ name, at: base + at, width, little }));
}

// --- VMDK -------------------------------------------------------------------------------------------

const SPARSE_HEADER = {
  magic: [0, 4],
  version: [4, 4],
  flags: [8, 4],
  capacity: [12, 8],
  grain_size: [20, 8],
  descriptor_offset: [28, 8],
  descriptor_size: [36, 8],
  num_gtes: [44, 4],
  rgd_offset: [48, 8],
  gd_offset: [56, 8],
  overhead: [64, 8],
  unclean: [72, 1],
  compress: [77, 2],
} as const;

/** Text that takes the place of the end of a descriptor, or of a line in it. */
const HOSTILE_LINES: readonly ((random: Random) => string)[] = [
  () => 'RW 1024 FLAT "base.raw" 0',
  () => 'RW 2048 SPARSE "missing.vmdk"',
  () => "RW 18014398509481983 ZERO",
  () => 'RW 9999999999999999 FLAT "flat-flat.vmdk" 9999999999999999',
  () => "RW 0 ZERO",
  () => 'RW 2048 SPARSE "split.vmdk"',
  () => 'RW 2048 FLAT "flat.vmdk" 0',
  () => 'RW 64 FLAT "/dev/null" 0',
  () => 'RW 64 FLAT "../../../../etc/hostname" 0',
  () => 'NOACCESS 64 FLAT "x" 0',
  () => 'createType="streamOptimized"',
  () => 'parentCID=00000001\nparentFileNameHint="flat.vmdk"',
  (random) => `x=${" ".repeat(random.pick([10, 1000, 200_000]))}y"z`,
  (random) => `RW ${" ".repeat(random.pick([10, 1000, 200_000]))}"`,
  (random) => `RW 1 FLAT "${"a".repeat(random.pick([10, 5000, 200_000]))}`,
  (random) => "a".repeat(random.pick([1000, 300_000])),
  (random) => "RW 1 ZERO\n".repeat(random.pick([10, 1024, 1025, 50_000])),
  (random) => "k=v\n".repeat(random.pick([10, 100_000])),
  () => 'ddb.adapterType = "x\u0000y"',
];

function descriptorPlace(image: FuzzImage, file: string, at: number, length: number, weight: number): Place {
  const storage = image.files.get(file);
  return {
    kind: "own",
    weight,
    file,
    damage: (random): Damage => {
      const text = Buffer.from(storage === undefined ? new Uint8Array(0) : readNow(storage, at, length))
        .toString("latin1")
        .replaceAll("\0", "");
      const lines = text.split("\n");
      const line = random.below(lines.length);
      const hostile = random.pick(HOSTILE_LINES)(random);
      const kind = random.weighted({ replace: 3, insert: 3, drop: 1, number: 3 });
      if (kind === "replace") lines[line] = hostile;
      else if (kind === "insert") lines.splice(line, 0, hostile);
      else if (kind === "drop") lines.splice(line, 1);
      else
        lines[line] = (lines[line] ?? "").replace(
          /\d+/,
          String(random.pick([0, 1, 63, 2 ** 31, 2 ** 53, "9".repeat(16), "9".repeat(20)])),
        );
      const bytes = new Uint8Array(Buffer.from(lines.join("\n"), "latin1"));
      // A descriptor of its own file may grow.
      const writes =
        at === 0
          ? [
              { file, length: bytes.length },
              { file, at, bytes },
            ]
          : [{ file, at, bytes: bytes.subarray(0, length) }];
      return { what: `${file}: descriptor line ${line} ${kind}: ${hostile.slice(0, 40)}`, writes };
    },
  };
}

export function placeVmdk(image: FuzzImage): PlacedImage {
  const places: Place[] = [];
  const structures = new Set<number>([0]);
  for (const file of image.files.keys()) {
    const reader = new Reader(image, file);
    if (reader.text(0, 1) === "#") places.push(descriptorPlace(image, file, 0, reader.size, 20));
    if (reader.text(0, 4) !== "KDMV") continue;
    places.push({ kind: "fields", weight: 20, file, fields: fieldsAt(0, true, SPARSE_HEADER) });
    const atEnd = reader.u32(56, true) === 0xffff_ffff;
    const header = atEnd ? reader.size - 2 * SECTOR : 0;
    if (atEnd) places.push({ kind: "fields", weight: 20, file, fields: fieldsAt(header, true, SPARSE_HEADER) });
    const descriptor = reader.u64(28, true) * SECTOR;
    if (descriptor > 0) places.push(descriptorPlace(image, file, descriptor, reader.u64(36, true) * SECTOR, 8));
    const directory = reader.u64(header + 56, true) * SECTOR;
    const entries = reader.u32(header + 44, true);
    structures.add(directory);
    places.push({
      kind: "table",
      weight: 8,
      file,
      table: { name: "grain directory", at: directory, entries: 4, width: 4, stride: 4, little: true },
    });
    const table = reader.u32(directory, true) * SECTOR;
    if (table === 0) continue;
    structures.add(table);
    places.push({
      kind: "table",
      weight: 14,
      file,
      table: { name: "grain table", at: table, entries, width: 4, stride: 4, little: true },
    });
    const grain = Array.from({ length: entries }, (_, i) => reader.u32(table + i * 4, true) * SECTOR).find(
      (at) => at > SECTOR,
    );
    if (grain === undefined) continue;
    structures.add(grain);
    places.push({
      kind: "fields",
      weight: 8,
      file,
      fields: fieldsAt(grain, true, { marker_lba: [0, 8], marker_size: [8, 4] }),
    });
    places.push({ kind: "bytes", weight: 10, file, name: "grain", at: grain + 12, length: 80 });
  }
  return { ...image, places, structures: [...structures], unit: SECTOR };
}

// --- VHDX -------------------------------------------------------------------------------------------

const VHDX_HEADER = {
  signature: [0, 4],
  checksum: [4, 4],
  sequence: [8, 8],
  log_guid: [48, 8],
  log_version: [64, 2],
  version: [66, 2],
  log_length: [68, 4],
  log_offset: [72, 8],
} as const;
const VHDX_ENTRY = {
  signature: [0, 4],
  checksum: [4, 4],
  length: [8, 4],
  tail: [12, 4],
  sequence: [16, 8],
  descriptors: [24, 4],
  guid: [32, 8],
  flushed: [48, 8],
  last: [56, 8],
  kind: [64, 4],
  trailing: [68, 4],
  leading: [72, 8],
  target: [80, 8],
  descriptor_sequence: [88, 8],
} as const;
const HEADERS = [64 * KIB, 128 * KIB];
const REGIONS = [192 * KIB, 256 * KIB];
const BAT_GUID = "6677c22d23f600429d64115e9bfd4a08";

function region(reader: Reader, isBat: boolean): { entry: number; offset: number; length: number } {
  for (let entry = REGIONS[0] as number; ; entry += 32) {
    const at = entry + 16;
    const found = Buffer.from(readNow(reader.storage, at, 16)).toString("hex") === BAT_GUID;
    if (found === isBat) return { entry: at, offset: reader.u64(at + 16, true), length: reader.u32(at + 24, true) };
  }
}

export function placeVhdx(image: FuzzImage): PlacedImage {
  const file = image.main;
  const reader = new Reader(image);
  const places: Place[] = [];
  const add = (weight: number, at: number, list: Parameters<typeof fieldsAt>[2]): number =>
    places.push({ kind: "fields", weight, file, fields: fieldsAt(at, true, list) });
  for (const at of HEADERS) add(8, at, VHDX_HEADER);
  for (const at of REGIONS) {
    add(3, at, { signature: [0, 4], checksum: [4, 4], count: [8, 4] });
    for (let entry = at + 16; entry < at + 16 + 64; entry += 32)
      add(4, entry, { guid: [0, 8], offset: [16, 8], length: [24, 4], required: [28, 4] });
  }
  const metadata = region(reader, false).offset;
  const count = reader.u32(metadata + 8, true) >>> 16;
  add(5, metadata, { signature: [0, 8], count: [10, 2] });
  for (let index = 0; index < count; index++) {
    const entry = metadata + 32 + index * 32;
    add(3, entry, { guid: [0, 8], offset: [16, 4], length: [20, 4], flags: [24, 4] });
    add(4, metadata + reader.u32(entry + 16, true), { value: [0, 8], low: [0, 4], high: [4, 4] });
  }
  const bat = region(reader, true).offset;
  places.push({
    kind: "table",
    weight: 12,
    file,
    table: { name: "block allocation table", at: bat, entries: 4, width: 8, stride: 8, little: true },
  });
  const log = reader.u64((HEADERS[0] as number) + 72, true);
  for (let at = log, entry = 0; entry < 4 && reader.text(at, 4) === "loge"; entry++) {
    add(10, at, VHDX_ENTRY);
    at += reader.u32(at + 8, true);
  }
  return {
    ...image,
    places,
    structures: [0, ...HEADERS, ...REGIONS, metadata, bat, log],
    unit: 1024 * KIB,
    mend: mendVhdx,
  };
}

/** Headers, region tables, and the entries of the log, as far as they say how long they are. */
function mendVhdx(storage: MemoryStorage): void {
  for (const at of HEADERS) mendCrc(storage, at, 4 * KIB);
  for (const at of REGIONS) mendCrc(storage, at, 64 * KIB);
  const log = Number(viewOf(padded(readNow(storage, (HEADERS[0] as number) + 72, 8), 8)).getBigUint64(0, true));
  for (let at = log, entry = 0; entry < 8 && at + 4096 <= storage.size(); entry++) {
    const head = readNow(storage, at, 12);
    if (Buffer.from(head.subarray(0, 4)).toString("latin1") !== "loge") return;
    const length = viewOf(head).getUint32(8, true);
    if (length === 0 || length % 4096 !== 0 || length > 1024 * KIB) return;
    mendCrc(storage, at, length);
    at += length;
  }
}

function padded(bytes: Uint8Array, length: number): Uint8Array {
  const whole = new Uint8Array(length);
  whole.set(bytes);
  return whole;
}

function mendCrc(storage: MemoryStorage, at: number, length: number): void {
  const bytes = readNow(storage, at, length);
  if (bytes.length < length) return;
  const view = viewOf(bytes);
  view.setUint32(4, 0, true);
  view.setUint32(4, crc32c(bytes, 0, length), true);
  void storage.write(at + 4, bytes.subarray(4, 8));
}

// --- VHD --------------------------------------------------------------------------------------------

const VPC_FOOTER = {
  cookie: [0, 8],
  features: [8, 4],
  version: [12, 4],
  data_offset: [16, 8],
  creator: [28, 4],
  original_size: [40, 8],
  current_size: [48, 8],
  cylinders: [56, 2],
  heads: [58, 1],
  sectors: [59, 1],
  type: [60, 4],
  checksum: [64, 4],
} as const;
const VPC_DYNAMIC = {
  cookie: [0, 8],
  table_offset: [16, 8],
  version: [24, 4],
  entries: [28, 4],
  block_size: [32, 4],
  checksum: [36, 4],
} as const;

export function placeVpc(image: FuzzImage): PlacedImage {
  const file = image.main;
  const reader = new Reader(image);
  const end = reader.size - SECTOR;
  const places: Place[] = [{ kind: "fields", weight: 10, file, fields: fieldsAt(end, false, VPC_FOOTER) }];
  const structures = [0, end];
  if (reader.text(0, 8) === "conectix") {
    const header = reader.u64(16, false);
    const table = reader.u64(header + 16, false);
    structures.push(header, table);
    places.push(
      { kind: "fields", weight: 20, file, fields: fieldsAt(0, false, VPC_FOOTER) },
      { kind: "fields", weight: 16, file, fields: fieldsAt(header, false, VPC_DYNAMIC) },
      {
        kind: "table",
        weight: 14,
        file,
        table: { name: "block table", at: table, entries: reader.u32(header + 28, false), width: 4, stride: 4 },
      },
    );
  }
  return { ...image, places, structures, unit: SECTOR, mend: mendVpc };
}

function mendVpc(storage: MemoryStorage): void {
  for (const at of [0, storage.size() - SECTOR]) mendSum(storage, at, SECTOR, 64);
  const header = Number(viewOf(padded(readNow(storage, 16, 8), 8)).getBigUint64(0));
  mendSum(storage, header, 1024, 36);
}

function mendSum(storage: MemoryStorage, at: number, length: number, checksumAt: number): void {
  if (at < 0 || at + length > storage.size()) return;
  const bytes = readNow(storage, at, length);
  const text = Buffer.from(bytes.subarray(0, 8)).toString("latin1");
  if (text !== "conectix" && text !== "cxsparse") return;
  let sum = 0;
  bytes.forEach((byte, index) => {
    if (index < checksumAt || index >= checksumAt + 4) sum += byte;
  });
  viewOf(bytes).setUint32(checksumAt, ~sum >>> 0);
  void storage.write(at + checksumAt, bytes.subarray(checksumAt, checksumAt + 4));
}

// --- VDI --------------------------------------------------------------------------------------------

const VDI_HEADER = {
  signature: [0x40, 4],
  version: [0x44, 4],
  header_size: [0x48, 4],
  type: [0x4c, 4],
  flags: [0x50, 4],
  map_offset: [0x154, 4],
  data_offset: [0x158, 4],
  sector_size: [0x168, 4],
  disk_size: [0x170, 8],
  block_size: [0x178, 4],
  block_extra: [0x17c, 4],
  blocks: [0x180, 4],
  allocated: [0x184, 4],
  link: [0x1a8, 8],
  parent: [0x1b8, 8],
} as const;

export function placeVdi(image: FuzzImage): PlacedImage {
  const file = image.main;
  const reader = new Reader(image);
  const map = reader.u32(0x154, true);
  const places: Place[] = [
    { kind: "fields", weight: 30, file, fields: fieldsAt(0, true, VDI_HEADER) },
    {
      kind: "table",
      weight: 14,
      file,
      table: { name: "block map", at: map, entries: reader.u32(0x180, true), width: 4, stride: 4, little: true },
    },
  ];
  return { ...image, places, structures: [0, map, reader.u32(0x158, true)], unit: SECTOR };
}
