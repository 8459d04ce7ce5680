import { viewOf } from "../../base/bytes.js";
import { ZcowError } from "../../base/errors.js";
import { decodeFeatureNames, EXTENSION, extensionName, isKnownExtension } from "./extensions.js";
import { AUTOCLEAR, INCOMPATIBLE } from "./features.js";
import { decodeFileName } from "./file-name.js";
import type { BitmapDirectory, CryptHeader, FeatureName, RawExtension } from "./header.js";
import type { HeaderFields } from "./header-fields.js";
import type { Verdict } from "./header-verdict.js";
import {
  FEATURE_NAME_ENTRY_BYTES,
  MAX_BACKING_FORMAT_BYTES,
  MAX_BITMAP_DIRECTORY_BYTES,
  MAX_BITMAPS,
  MAX_HOST_OFFSET,
} from "./limits.js";

/** What the known extensions say, checked. */
export interface KnownExtensions {
  readonly backingFormat: string | undefined;
  readonly featureNames: readonly FeatureName[];
  readonly dataFileName: string | undefined;
  readonly bitmaps: BitmapDirectory | undefined;
  readonly cryptHeader: CryptHeader | undefined;
}

const LUKS = 2;
const CRYPT_HEADER_BYTES = 16;
const BITMAPS_BYTES = 24;

/**
 * Decodes every extension but the zoned one. Throws `QCOW2_EXTENSION_DUPLICATE`, `QCOW2_BACKING_FORMAT`,
 * `QCOW2_CRYPT_HEADER`, `QCOW2_BITMAPS`.
 */
export function decodeKnownExtensions(
  extensions: readonly RawExtension[],
  fields: HeaderFields,
  verdict: Verdict,
): KnownExtensions {
  checkDuplicates(extensions, verdict);
  const dataOf = (type: number): Uint8Array | undefined =>
    extensions.find((extension) => extension.type === type)?.data;
  return {
    backingFormat: decodeBackingFormat(dataOf(EXTENSION.backingFormat)),
    featureNames: decodeNames(dataOf(EXTENSION.featureNames), verdict),
    dataFileName: mapDefined(dataOf(EXTENSION.dataFile), decodeFileName),
    cryptHeader: decodeCryptHeader(dataOf(EXTENSION.cryptHeader), fields),
    bitmaps: decodeBitmaps(dataOf(EXTENSION.bitmaps), fields, verdict),
  };
}

function mapDefined<T, R>(value: T | undefined, map: (value: T) => R): R | undefined {
  return value === undefined ? undefined : map(value);
}

function checkDuplicates(extensions: readonly RawExtension[], verdict: Verdict): void {
  const counts = new Map<number, number>();
  for (const { type } of extensions) counts.set(type, (counts.get(type) ?? 0) + 1);
  for (const [type, count] of counts) {
    if (count === 1) continue;
    const fault = new ZcowError(
      "QCOW2_EXTENSION_DUPLICATE",
      `Header: the ${extensionName(type)} appears ${count} times; at most one is allowed`,
      { data: { structure: "header extension", field: "type", value: type, limit: 1 } },
    );
    // Which of two known ones holds is anybody's guess; an unknown one is carried, not interpreted.
    verdict.refuseLaterUnless(verdict.mode === "check" || !isKnownExtension(type), fault);
  }
}

function decodeBackingFormat(data: Uint8Array | undefined): string | undefined {
  if (data === undefined) return undefined;
  if (data.length > MAX_BACKING_FORMAT_BYTES) {
    throw new ZcowError(
      "QCOW2_BACKING_FORMAT",
      `Header: the backing format name has ${data.length} bytes, more than the limit ${MAX_BACKING_FORMAT_BYTES}`,
      {
        data: {
          structure: "backing format extension",
          field: "length",
          value: data.length,
          limit: MAX_BACKING_FORMAT_BYTES,
        },
        stockText: `ERROR: ext_backing_format: len=${data.length} too large (>=${MAX_BACKING_FORMAT_BYTES + 1})`,
      },
    );
  }
  return decodeFileName(data);
}

function decodeNames(data: Uint8Array | undefined, verdict: Verdict): readonly FeatureName[] {
  if (data === undefined) return [];
  if (data.length % FEATURE_NAME_ENTRY_BYTES !== 0) {
    verdict.report(
      new ZcowError(
        "QCOW2_FEATURE_NAMES",
        `Header: the feature name table has ${data.length} bytes, not a multiple of ${FEATURE_NAME_ENTRY_BYTES}; the rest is ignored`,
        {
          data: {
            structure: "feature name table",
            field: "length",
            value: data.length,
            limit: FEATURE_NAME_ENTRY_BYTES,
          },
        },
      ),
    );
  }
  return decodeFeatureNames(data);
}

function cryptFault(
  field: string,
  value: number | bigint,
  limit: number,
  message: string,
  stockText: string,
): ZcowError {
  return new ZcowError("QCOW2_CRYPT_HEADER", `Header: ${message}`, {
    data: { structure: "encryption header extension", field, value, limit },
    stockText,
  });
}

function decodeCryptHeader(data: Uint8Array | undefined, fields: HeaderFields): CryptHeader | undefined {
  const method = fields.cryptMethod;
  if (data === undefined) {
    if (method !== LUKS) return undefined;
    const message = `crypt_method ${method} (LUKS) needs the encryption header extension, which is missing`;
    throw cryptFault("crypt_method", method, LUKS, message, `Missing CRYPTO header for crypt method ${method}`);
  }
  if (method !== LUKS) {
    const message = `the encryption header extension belongs to crypt_method ${LUKS} (LUKS), but crypt_method is ${method}`;
    throw cryptFault(
      "crypt_method",
      method,
      LUKS,
      message,
      "CRYPTO header extension only expected with LUKS encryption method",
    );
  }
  if (data.length !== CRYPT_HEADER_BYTES) {
    const message = `the encryption header extension has ${data.length} bytes instead of ${CRYPT_HEADER_BYTES}`;
    const stockText = `CRYPTO header extension size ${data.length}, but expected size ${CRYPT_HEADER_BYTES}`;
    throw cryptFault("length", data.length, CRYPT_HEADER_BYTES, message, stockText);
  }
  const offset = viewOf(data).getBigUint64(0);
  const length = viewOf(data).getBigUint64(8);
  if (offset % BigInt(fields.clusterSize) !== 0n) {
    const message = `the encryption header offset ${offset} is not a multiple of the cluster size ${fields.clusterSize}`;
    const stockText = `Encryption header offset '${offset}' is not a multiple of cluster size '${fields.clusterSize}'`;
    throw cryptFault("offset", offset, fields.clusterSize, message, stockText);
  }
  if (offset + length > MAX_HOST_OFFSET) {
    const message = `the encryption header of ${length} bytes at offset ${offset} ends above 2^53`;
    throw new ZcowError("QCOW2_CRYPT_HEADER", `Header: ${message}`, {
      data: { structure: "encryption header extension", field: "length", value: length, limit: MAX_HOST_OFFSET },
    });
  }
  return { offset: Number(offset), length: Number(length) };
}

function bitmapsFault(
  field: string,
  value: number | bigint,
  limit: number,
  message: string,
  stockText: string,
): ZcowError {
  return new ZcowError("QCOW2_BITMAPS", `Header: bitmaps extension: ${message}`, {
    data: { structure: "bitmaps extension", field, value, limit },
    stockText: `bitmaps_ext: ${stockText}`,
  });
}

function decodeBitmaps(
  data: Uint8Array | undefined,
  fields: HeaderFields,
  verdict: Verdict,
): BitmapDirectory | undefined {
  const valid = (fields.autoclear & AUTOCLEAR.bitmaps) !== 0n;
  if (data === undefined) {
    if (valid) verdict.refuseLaterUnless(!verdict.writable, bitmapsMissing(fields.autoclear));
    return undefined;
  }
  if (data.length !== BITMAPS_BYTES) {
    throw bitmapsFault(
      "length",
      data.length,
      BITMAPS_BYTES,
      `length ${data.length} instead of ${BITMAPS_BYTES}`,
      "Invalid extension length",
    );
  }
  if (!valid) {
    verdict.report(bitmapsStale());
    return undefined;
  }
  const view = viewOf(data);
  const reserved = view.getUint32(4);
  if (reserved !== 0)
    throw bitmapsFault(
      "reserved",
      reserved,
      0,
      `the reserved field is ${reserved} instead of 0`,
      "Reserved field is not zero",
    );
  const count = view.getUint32(0);
  if (count > MAX_BITMAPS) {
    const stockText = `Image has ${count} bitmaps, exceeding the QEMU supported maximum of ${MAX_BITMAPS}`;
    throw bitmapsFault(
      "nb_bitmaps",
      count,
      MAX_BITMAPS,
      `nb_bitmaps ${count} is above the limit ${MAX_BITMAPS}`,
      stockText,
    );
  }
  if (count === 0) throw noBitmaps();
  const offset = view.getBigUint64(16);
  if (offset % BigInt(fields.clusterSize) !== 0n || offset > MAX_HOST_OFFSET) {
    const message = `directory offset 0x${offset.toString(16)} is not a multiple of the cluster size ${fields.clusterSize} below 2^53`;
    throw bitmapsFault(
      "bitmap_directory_offset",
      offset,
      fields.clusterSize,
      message,
      "invalid bitmap directory offset",
    );
  }
  const length = view.getBigUint64(8);
  if (length > MAX_BITMAP_DIRECTORY_BYTES) {
    const message = `directory size ${length} is above the limit ${MAX_BITMAP_DIRECTORY_BYTES}`;
    const stockText = `bitmap directory size (${length}) exceeds the maximum supported size (${MAX_BITMAP_DIRECTORY_BYTES})`;
    throw bitmapsFault("bitmap_directory_size", length, MAX_BITMAP_DIRECTORY_BYTES, message, stockText);
  }
  return { count, offset: Number(offset), length: Number(length) };
}

function noBitmaps(): ZcowError {
  return new ZcowError(
    "QCOW2_BITMAPS",
    "Header: bitmaps extension: nb_bitmaps is 0; the extension must not be there then",
    {
      data: { structure: "bitmaps extension", field: "nb_bitmaps", value: 0, limit: 1 },
      stockText: "found bitmaps extension with zero bitmaps",
    },
  );
}

/** QEMU opens such an image and then takes the header for a bitmap directory at the first write. */
function bitmapsMissing(autoclear: bigint): ZcowError {
  return new ZcowError(
    "QCOW2_BITMAPS",
    `Header: autoclear_features 0x${autoclear.toString(16)} has bit 0 (bitmaps) set, but the bitmaps extension is missing`,
    { data: { structure: "header", field: "autoclear_features", value: autoclear, limit: 0 } },
  );
}

function bitmapsStale(): ZcowError {
  return new ZcowError(
    "QCOW2_BITMAPS",
    "Header: the bitmaps extension is present but autoclear bit 0 is clear: a program without bitmap support changed the image, so its bitmaps are ignored",
    {
      data: { structure: "header", field: "autoclear_features", value: 0, limit: 1 },
      stockText: "a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent",
    },
  );
}

const AES = 1;

/** crypt_method is one the format defines. */
export function checkCryptMethod(fields: HeaderFields): void {
  if (fields.cryptMethod <= LUKS) return;
  throw new ZcowError(
    "QCOW2_CRYPT_METHOD",
    `Header: crypt_method ${fields.cryptMethod} is not a known encryption method (0 none, ${AES} AES, ${LUKS} LUKS)`,
    {
      data: { structure: "header", field: "crypt_method", offset: 32, value: fields.cryptMethod, limit: LUKS },
      stockText: `Unsupported encryption method ${fields.cryptMethod}`,
    },
  );
}

/** The external data file features against the extension and the backing file. */
export function checkDataFile(
  fields: HeaderFields,
  known: KnownExtensions,
  hasBackingFile: boolean,
  verdict: Verdict,
): void {
  const external = (fields.incompatible & INCOMPATIBLE.externalData) !== 0n;
  const raw = (fields.autoclear & AUTOCLEAR.rawExternalData) !== 0n;
  const data = { structure: "header", field: "incompatible_features", value: fields.incompatible };
  if (external && known.dataFileName === undefined) {
    const message = "Header: incompatible bit 2 (external data file) is set, but the image names no data file";
    const fault = new ZcowError("QCOW2_DATA_FILE_MISSING", message, {
      data,
      stockText: "'data-file' is required for this image",
    });
    verdict.refuseUnless(verdict.mode === "info", fault);
  }
  if (raw && !external) {
    const message =
      "Header: autoclear bit 1 (raw external data) is set without incompatible bit 2 (external data file)";
    const fault = new ZcowError("QCOW2_DATA_FILE_RAW", message, {
      data: { structure: "header", field: "autoclear_features", value: fields.autoclear },
      stockText: "data-file-raw requires a data file",
    });
    verdict.refuseUnless(verdict.mode === "info", fault);
  }
  if (raw && hasBackingFile) {
    const message = "Header: autoclear bit 1 (raw external data) excludes a backing file, but the image names one";
    const fault = new ZcowError("QCOW2_DATA_FILE_RAW", message, {
      data: { structure: "header", field: "autoclear_features", value: fields.autoclear },
    });
    verdict.refuseLaterUnless(verdict.mode !== "open", fault);
  }
}
