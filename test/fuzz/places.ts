import type { MemoryStorage } from "../../src/storage/memory-storage.js";
import type { Random } from "../support/random.js";
import { type Damage, damagedFiles, type FuzzImage, readNow } from "./fuzz-image.js";

/** A number in a structure of an image. Offset in bytes of its file. */
export interface Field {
  readonly name: string;
  readonly at: number;
  readonly width: 1 | 2 | 4 | 8;
  readonly little?: boolean;
}

/** Numbers side by side, all of one kind. */
export interface Table {
  readonly name: string;
  readonly at: number;
  readonly entries: number;
  readonly width: 4 | 8;
  /** Bytes from entry to entry. */
  readonly stride: number;
  readonly little?: boolean;
}

/** A part of an image that can be damaged, in the file that it is in. */
export type Place = { readonly weight: number; readonly file: string } & (
  | { readonly kind: "fields"; readonly fields: readonly Field[] }
  | { readonly kind: "table"; readonly table: Table }
  | { readonly kind: "bytes"; readonly name: string; readonly at: number; readonly length: number }
  /** Anything else, by its own means. */
  | { readonly kind: "own"; readonly damage: (random: Random) => Damage }
);

/** All that fuzzing knows of an image. */
export interface PlacedImage extends FuzzImage {
  readonly places: readonly Place[];
  /** Offsets where structures begin: the values most likely to confuse one with another. */
  readonly structures: readonly number[];
  /** Unit of offsets: a cluster, block or sector. */
  readonly unit: number;
  /** Makes the checksums of the damaged main file right again. */
  readonly mend?: (storage: MemoryStorage) => void;
}

/** Numbers at which arithmetic and limits break, seen from this image. */
function interesting(random: Random, image: PlacedImage, fileSize: number, old: bigint): bigint {
  const unit = BigInt(image.unit);
  const pool = [
    () => BigInt(random.pick([0, 1, 2, 3, 7, 8, 9, 21, 22, 31, 63, 64, 512, 513, 1023, 4096, 65_535, 65_536])),
    () => (1n << BigInt(random.below(64))) - BigInt(random.below(2)),
    () => old + BigInt(random.pick([-1, 1, 2, 8, 511, 512])),
    () => old + unit * BigInt(random.between(-3, 3)),
    () => old ^ (1n << BigInt(random.below(64))),
    () => BigInt(random.pick(image.structures)),
    () => BigInt(random.pick(image.structures)) | (1n << 63n),
    () => unit * BigInt(random.below(Math.floor(fileSize / image.unit) + 2)),
    () => (unit * BigInt(random.below(Math.floor(fileSize / image.unit) + 2))) | (1n << 63n),
    () => BigInt(fileSize) + BigInt(random.pick([-512, -1, 0, 1, 512, image.unit, 1 << 30])),
    () => (BigInt(random.u32()) << 32n) | BigInt(random.u32()),
    () => (1n << 53n) + BigInt(random.between(-1, 1)),
    () => (1n << 62n) | (BigInt(random.u32()) << 20n),
    () => old * 2n,
    () => old << BigInt(random.between(2, 16)),
  ];
  return BigInt.asUintN(64, random.pick(pool)());
}

function setField(random: Random, image: PlacedImage, file: string, field: Field): Damage {
  const storage = image.files.get(file);
  if (storage === undefined) throw new Error(`there is no file ${file}`);
  const { name, at, width, little = false } = field;
  const found = readNow(storage, at, width);
  let old = 0n;
  for (const byte of little ? found.toReversed() : found) old = (old << 8n) | BigInt(byte);
  let value = interesting(random, image, storage.size(), old);
  const bytes = new Uint8Array(width);
  for (let i = 0; i < width; i++) {
    bytes[little ? i : width - 1 - i] = Number(value & 0xffn);
    value >>= 8n;
  }
  return { what: `${file}: ${name} = 0x${Buffer.from(bytes).toString("hex")}`, writes: [{ file, at, bytes }] };
}

function damageBytes(random: Random, place: { file: string; name: string; at: number; length: number }): Damage {
  const at = place.at + random.below(Math.max(1, place.length));
  const bytes = Uint8Array.from({ length: random.pick([1, 1, 2, 4, 16]) }, () =>
    random.chance(0.3) ? random.pick([0, 255]) : random.below(256),
  );
  const { file } = place;
  return { what: `${file}: ${place.name}: ${bytes.length} bytes at ${at}`, writes: [{ file, at, bytes }] };
}

function damagePlace(random: Random, image: PlacedImage, place: Place): Damage {
  switch (place.kind) {
    case "fields":
      return setField(random, image, place.file, random.pick(place.fields));
    case "table": {
      const { name, at, entries, stride, width, little } = place.table;
      // Mostly near the start, where small images have their entries.
      const index = random.chance(0.7) ? random.below(Math.min(entries, 24)) : random.below(entries);
      const part = stride > width && random.chance(0.5) ? width : 0;
      const field = { name: `${name}[${index}]+${part}`, at: at + index * stride + part, width };
      return setField(random, image, place.file, little === undefined ? field : { ...field, little });
    }
    case "bytes":
      return damageBytes(random, place);
    case "own":
      return place.damage(random);
  }
}

function damageFile(random: Random, image: PlacedImage): Damage {
  const file = random.pick([...image.files.keys()]);
  const size = image.files.get(file)?.size() ?? 0;
  if (random.chance(0.5)) {
    const length = random.chance(0.5)
      ? random.below(size + 1)
      : random.below(Math.floor(size / image.unit) + 2) * image.unit;
    return { what: `${file}: cut or grown to ${length} bytes`, writes: [{ file, length }] };
  }
  if (random.chance(0.4)) {
    const length = size + 2 ** random.between(9, 48);
    return { what: `${file}: grown to ${length} bytes`, writes: [{ file, length }] };
  }
  return damageBytes(random, { file, name: "anywhere", at: 0, length: size });
}

/** Puts a copy of one structure in the place of another. */
function copyStructure(random: Random, image: PlacedImage): Damage {
  const [from, to] = [random.pick(image.structures), random.pick(image.structures)];
  const storage = image.files.get(image.main);
  const bytes = storage === undefined ? new Uint8Array(0) : readNow(storage, from, image.unit);
  return { what: `${from} copied over ${to}`, writes: [{ file: image.main, at: to, bytes }] };
}

function pickPlace(random: Random, places: readonly Place[]): Place {
  let left = random.below(places.reduce((sum, { weight }) => sum + weight, 0));
  for (const place of places) {
    if (left < place.weight) return place;
    left -= place.weight;
  }
  throw new Error("weights must be positive");
}

/** One to four damages; checksums mostly follow. */
export function randomDamages(random: Random, image: PlacedImage): Damage[] {
  const count = random.pick([1, 1, 1, 2, 2, 3, 4]);
  const damages = Array.from({ length: count }, (): Damage => {
    const kind = random.below(100);
    if (kind < 6) return damageFile(random, image);
    if (kind < 8) return copyStructure(random, image);
    return damagePlace(random, image, pickPlace(random, image.places));
  });
  if (image.mend === undefined || random.chance(0.15)) return damages;
  return [...damages, { what: "checksums made right", writes: [], mends: true }];
}

/** The files of the image with the damages in them. */
export function applyDamages(image: PlacedImage, damages: readonly Damage[]): Map<string, MemoryStorage> {
  const files = damagedFiles(image.files, damages);
  const main = files.get(image.main)?.clone();
  if (image.mend === undefined || main === undefined || !damages.some(({ mends }) => mends === true)) return files;
  image.mend(main);
  return files.set(image.main, main);
}
