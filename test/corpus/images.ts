import { KiB, MiB } from "../../src/base/units.js";
import { createQcow2 } from "../../src/formats/qcow2/create.js";
import type { CreateQcow2Options, CreateZoneOptions } from "../../src/formats/qcow2/create-options.js";
import { memoryStorage } from "../../src/storage/memory-storage.js";

/** Good images in memory, and ways to spoil them. Offsets are those of the format, written out so that a wrong constant in the source shows. */

export async function plainImage(options: CreateQcow2Options = {}): Promise<Uint8Array> {
  const storage = memoryStorage();
  await createQcow2(storage, { size: 64 * MiB, ...options });
  return storage.bytes();
}

/** 12 zones of 8 MiB, 2 of them conventional, clusters of 64 KiB: extension data at byte 560, table at 0x30000. */
export async function zonedImage(zone: CreateZoneOptions = {}): Promise<Uint8Array> {
  return plainImage({
    size: 96 * MiB,
    zone: { mode: "host-managed", size: 8 * MiB, conventionalZones: 2, maxOpenZones: 4, maxActiveZones: 6, ...zone },
  });
}

/** Where the data of the zoned extension starts: behind the header (112) and the feature name table (8 + 9 * 48), and its own header (8). */
export const ZONED_DATA_AT = 112 + 8 + 9 * 48 + 8;
/** Where the write-pointer table starts: cluster 3. */
export const TABLE_AT = 3 * 64 * KiB;
/** The first header extension of a plain version 3 image. */
export const EXTENSIONS_AT = 112;

export type Change = (bytes: Uint8Array) => Uint8Array | void;

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

export const put8 = (at: number, value: number): Change => (bytes) => view(bytes).setUint8(at, value);
export const put32 = (at: number, value: number): Change => (bytes) => view(bytes).setUint32(at, value);
export const put64 = (at: number, value: bigint | number): Change => (bytes) => view(bytes).setBigUint64(at, BigInt(value));

export const all =
  (...changes: readonly Change[]): Change =>
  (bytes) =>
    changes.reduce<Uint8Array>((current, change) => change(current) ?? current, bytes);

export const truncate =
  (length: number): Change =>
  (bytes) =>
    bytes.slice(0, length);

/** Replaces the extension area from `at` on by these extensions and an end marker. */
export const putExtensions =
  (extensions: readonly (readonly [type: number, data: Uint8Array])[], at = EXTENSIONS_AT): Change =>
  (bytes) => {
    let position = at;
    for (const [type, data] of extensions) {
      bytes.fill(0, position, position + 8 + data.length + 16);
      view(bytes).setUint32(position, type);
      view(bytes).setUint32(position + 4, data.length);
      bytes.set(data, position + 8);
      position += 8 + Math.ceil(data.length / 8) * 8;
    }
    bytes.fill(0, position, position + 8);
  };

/** Data of an extension: fields of 4 bytes (numbers) and 8 bytes (bigints). */
export function fields(...values: readonly (number | bigint)[]): Uint8Array {
  const bytes = new Uint8Array(values.reduce<number>((sum, value) => sum + (typeof value === "bigint" ? 8 : 4), 0));
  let at = 0;
  for (const value of values) {
    if (typeof value === "bigint") view(bytes).setBigUint64(at, value);
    else view(bytes).setUint32(at, value);
    at += typeof value === "bigint" ? 8 : 4;
  }
  return bytes;
}

export const text = (value: string): Uint8Array => new TextEncoder().encode(value);
