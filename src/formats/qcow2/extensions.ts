import { viewOf } from "../../base/bytes.js";
import { isZcowError, ZcowError } from "../../base/errors.js";
import { alignUp } from "../../base/integers.js";
import type { FeatureName, RawExtension } from "./header.js";
import { FEATURE_NAME_BYTES, FEATURE_NAME_ENTRY_BYTES } from "./limits.js";

/**
 * The header extension area (qcow2 specification, "Header extensions"): records of type u32, length u32 and data
 * padded to 8 bytes, ended by type 0, by the backing file name or by the end of the first cluster.
 */

export const EXTENSION = {
  end: 0,
  backingFormat: 0xe2792aca,
  featureNames: 0x6803f857,
  bitmaps: 0x23852875,
  cryptHeader: 0x0537be77,
  dataFile: 0x44415441,
  zoned: 0x007a6264,
  /** "zcsj" */
  session: 0x7a63736a,
} as const;

const EXTENSION_NAMES: ReadonlyMap<number, string> = new Map([
  [EXTENSION.backingFormat, "backing format"],
  [EXTENSION.featureNames, "feature name table"],
  [EXTENSION.bitmaps, "bitmaps"],
  [EXTENSION.cryptHeader, "encryption header"],
  [EXTENSION.dataFile, "external data file"],
  [EXTENSION.zoned, "zoned"],
  [EXTENSION.session, "session"],
]);

const RECORD_HEADER_BYTES = 8;
const PADDING = 8;

/** How messages call an extension: its name when known, and its magic. */
export function extensionName(type: number): string {
  const magic = `0x${type.toString(16).padStart(8, "0")}`;
  const name = EXTENSION_NAMES.get(type);
  return name === undefined ? `unknown extension ${magic}` : `${name} extension (${magic})`;
}

export function isKnownExtension(type: number): boolean {
  return EXTENSION_NAMES.has(type);
}

/**
 * The extensions in the area [start, end) of cluster 0, one by one. Their data are views on `bytes`, which must not change.
 * Throws `QCOW2_EXTENSION_LENGTH` when a record runs past `end`. `bytes` may end before `end` only if the area's
 * end marker does not.
 */
export function* extensionRecords(bytes: Uint8Array, start: number, end: number): Generator<RawExtension> {
  const view = viewOf(bytes);
  for (let at = start; at < end; ) {
    const dataAt = at + RECORD_HEADER_BYTES;
    const type = dataAt <= bytes.length ? view.getUint32(at) : EXTENSION.end;
    const length = dataAt <= bytes.length ? view.getUint32(at + 4) : 0;
    if (dataAt > end || length > end - dataAt) throw extensionTooLong(type, at, length, end);
    if (type === EXTENSION.end) return;
    yield { type, data: bytes.subarray(dataAt, dataAt + length) };
    at = dataAt + alignUp(length, PADDING);
  }
}

/** The feature names in the area, as far as they can be found: for naming a feature that is not known, whatever else is wrong. */
export function findFeatureNames(bytes: Uint8Array, start: number, end: number): FeatureName[] {
  try {
    for (const { type, data } of extensionRecords(bytes, start, end)) {
      if (type === EXTENSION.featureNames) return decodeFeatureNames(data);
    }
  } catch (error) {
    if (!isZcowError(error, "QCOW2_EXTENSION_LENGTH")) throw error;
  }
  return [];
}

/**
 * Bytes of cluster 0 that `extensionRecords` would look at: at most `end`. More than `bytes.length` when the area
 * goes on past the bytes at hand.
 */
export function extensionAreaEnd(bytes: Uint8Array, start: number, end: number): number {
  const view = viewOf(bytes);
  let at = start;
  while (at < end) {
    if (at + RECORD_HEADER_BYTES > bytes.length) return end;
    if (view.getUint32(at) === EXTENSION.end) return Math.min(end, at + RECORD_HEADER_BYTES);
    at += RECORD_HEADER_BYTES + alignUp(view.getUint32(at + 4), PADDING);
  }
  return end;
}

function extensionTooLong(type: number, at: number, length: number, end: number): ZcowError {
  return new ZcowError(
    "QCOW2_EXTENSION_LENGTH",
    `Header extension at byte ${at}: the ${extensionName(type)} of ${length} bytes runs past the end of the extension area at byte ${end}`,
    {
      data: {
        structure: "header extension",
        field: "length",
        offset: at,
        value: length,
        limit: Math.max(0, end - at - RECORD_HEADER_BYTES),
      },
      stockText: "Header extension too large",
    },
  );
}

/** Bytes of the end marker: a record without data. */
export const END_MARKER_BYTES = RECORD_HEADER_BYTES;

/** Bytes that `writeExtensions` takes: records with padding, without an end marker. */
export function extensionsLength(extensions: readonly RawExtension[]): number {
  return extensions.reduce((sum, { data }) => sum + RECORD_HEADER_BYTES + alignUp(data.length, PADDING), 0);
}

/** Writes the records at `start`. `bytes` is zero there, which makes the end marker too. */
export function writeExtensions(bytes: Uint8Array, start: number, extensions: readonly RawExtension[]): void {
  const view = viewOf(bytes);
  let at = start;
  for (const { type, data } of extensions) {
    view.setUint32(at, type);
    view.setUint32(at + 4, data.length);
    bytes.set(data, at + RECORD_HEADER_BYTES);
    at += RECORD_HEADER_BYTES + alignUp(data.length, PADDING);
  }
}

/** Replaces the extension of `type` in place, adds it at the end when there is none, or removes it. */
export function withExtension(
  extensions: readonly RawExtension[],
  type: number,
  data: Uint8Array | undefined,
): readonly RawExtension[] {
  const at = extensions.findIndex((extension) => extension.type === type);
  if (data === undefined) return extensions.filter((extension) => extension.type !== type);
  if (at === -1) return [...extensions, { type, data }];
  return extensions.with(at, { type, data });
}

const FEATURE_TYPES = ["incompatible", "compatible", "autoclear"] as const;

/** The whole entries of a feature name table. A name is not necessarily ended by a zero byte. */
export function decodeFeatureNames(data: Uint8Array): FeatureName[] {
  const names: FeatureName[] = [];
  for (let at = 0; at + FEATURE_NAME_ENTRY_BYTES <= data.length; at += FEATURE_NAME_ENTRY_BYTES) {
    const type = data[at] as number;
    const field = data.subarray(at + 2, at + 2 + FEATURE_NAME_BYTES);
    const end = field.indexOf(0);
    const name = new TextDecoder().decode(end === -1 ? field : field.subarray(0, end));
    names.push({ type: FEATURE_TYPES[type] ?? type, bit: data[at + 1] as number, name });
  }
  return names;
}

/** A feature name table with exactly `names`, in their order. Names must be at most 46 bytes. */
export function encodeFeatureNames(names: readonly FeatureName[]): Uint8Array {
  const data = new Uint8Array(names.length * FEATURE_NAME_ENTRY_BYTES);
  names.forEach(({ type, bit, name }, index) => {
    const at = index * FEATURE_NAME_ENTRY_BYTES;
    data[at] = typeof type === "number" ? type : FEATURE_TYPES.indexOf(type);
    data[at + 1] = bit;
    data.set(new TextEncoder().encode(name).subarray(0, FEATURE_NAME_BYTES), at + 2);
  });
  return data;
}
