import { ZcowError } from "../../base/errors.js";
import { decodeFeatureNames, EXTENSION, extensionName, isKnownExtension } from "./extensions.js";
import { AUTOCLEAR, INCOMPATIBLE } from "./features.js";
import { decodeFileName } from "./file-name.js";
import type { BitmapDirectory, CryptHeader, FeatureName, RawExtension } from "./header.js";
import { decodeBitmaps, refuseMissingBitmaps } from "./header-bitmaps.js";
import { decodeCryptHeader } from "./header-crypt.js";
import type { HeaderFields } from "./header-fields.js";
import type { Verdict } from "./header-verdict.js";
import { FEATURE_NAME_ENTRY_BYTES, MAX_BACKING_FORMAT_BYTES } from "./limits.js";

/** What the known extensions say, checked. */
export interface KnownExtensions {
  /** All records, in the order of the file, the known ones too. */
  readonly extensions: readonly RawExtension[];
  readonly backingFormat: string | undefined;
  readonly featureNames: readonly FeatureName[];
  readonly dataFileName: string | undefined;
  readonly bitmaps: BitmapDirectory | undefined;
  readonly cryptHeader: CryptHeader | undefined;
}

/**
 * Decodes every extension but the zoned one. Faults are found in the order of the stock tools: record by record, then what
 * is missing. Throws `QCOW2_EXTENSION_LENGTH`, `QCOW2_EXTENSION_DUPLICATE`, `QCOW2_BACKING_FORMAT`, `QCOW2_CRYPT_HEADER`,
 * `QCOW2_BITMAPS`.
 */
export function decodeExtensions(
  records: Iterable<RawExtension>,
  fields: HeaderFields,
  verdict: Verdict,
): KnownExtensions {
  const extensions: RawExtension[] = [];
  let backingFormat: string | undefined;
  let featureNames: readonly FeatureName[] | undefined;
  let dataFileName: string | undefined;
  let cryptHeader: CryptHeader | undefined;
  let bitmaps: BitmapDirectory | undefined;
  for (const extension of records) {
    const { type, data } = extension;
    extensions.push(extension);
    if (type === EXTENSION.backingFormat) backingFormat ??= decodeBackingFormat(data);
    else if (type === EXTENSION.featureNames) featureNames ??= decodeNames(data, verdict);
    else if (type === EXTENSION.dataFile) dataFileName ??= decodeDataFileName(data);
    else if (type === EXTENSION.cryptHeader) cryptHeader ??= decodeCryptHeader(data, fields);
    else if (type === EXTENSION.bitmaps) bitmaps ??= decodeBitmaps(data, fields, verdict);
  }
  const has = (type: number): boolean => extensions.some((extension) => extension.type === type);
  if (!has(EXTENSION.bitmaps)) refuseMissingBitmaps(fields, verdict);
  checkDuplicates(extensions, verdict);
  return { extensions, backingFormat, featureNames: featureNames ?? [], dataFileName, cryptHeader, bitmaps };
}

/** As the stock tools read it, the name ends at the first zero byte. */
function decodeDataFileName(data: Uint8Array): string {
  const end = data.indexOf(0);
  return decodeFileName(end === -1 ? data : data.subarray(0, end));
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

function decodeBackingFormat(data: Uint8Array): string {
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

function decodeNames(data: Uint8Array, verdict: Verdict): readonly FeatureName[] {
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
  if (external && !known.dataFileName && !verdict.dataFileGiven) {
    const message = "Header: incompatible bit 2 (external data file) is set, but the image names no data file";
    const fault = new ZcowError("QCOW2_DATA_FILE_MISSING", message, {
      data,
      stockText:
        known.dataFileName === ""
          ? "The 'file' block driver requires a file name"
          : "'data-file' is required for this image",
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
