import { ZcowError } from "../../base/errors.js";
import { extensionAreaEnd, extensionRecords, findFeatureNames } from "./extensions.js";
import { INCOMPATIBLE, KNOWN_INCOMPATIBLE, nameIncompatibleBits } from "./features.js";
import { decodeFileName } from "./file-name.js";
import { qcow2Geometry } from "./geometry.js";
import type { UnresolvedHeader } from "./header.js";
import { checkCryptMethod, refuseMissingCryptHeader } from "./header-crypt.js";
import { checkDataFile, decodeExtensions } from "./header-extensions.js";
import {
  checkExtendedL2,
  decodeFields,
  FIELD,
  FIELDS_BYTES,
  FIRST_UNKNOWN_BYTE,
  type HeaderFields,
} from "./header-fields.js";
import { checkL1Table, checkRefcountTable, checkRefcountWidth, checkSnapshotTable } from "./header-tables.js";
import { type HeaderUse, Verdict } from "./header-verdict.js";
import { MAX_BACKING_NAME_BYTES } from "./limits.js";

export interface ParseHeaderOptions extends HeaderUse {
  /** Bytes in the image file. */
  readonly fileSize: number;
}

/**
 * Decodes and checks the header in `bytes`, the beginning of cluster 0 as far as it is in use (all of cluster 0, or at
 * least what `headerBytesNeeded` asks for). Everything is checked before anything is allocated for it.
 *
 * Throws the `QCOW2_*` codes. The zoned extension is only carried along: `readHeader` decodes it too.
 */
export function parseHeader(bytes: Uint8Array, options: ParseHeaderOptions): UnresolvedHeader {
  const verdict = new Verdict(options);
  const fields = decodeFields(padded(bytes), options.fileSize);
  const areaEnd = extensionLimit(fields);
  checkCompressionType(fields);
  checkFeatures(bytes, fields, areaEnd, verdict);
  checkRefcountWidth(fields);
  checkRefcountTable(fields, options.fileSize, verdict);
  checkSnapshotTable(fields, options.fileSize, verdict);
  checkL1Table(fields, coverageOf(fields), options.fileSize, verdict);
  checkCryptMethod(fields);
  const known = decodeExtensions(extensionRecords(bytes, fields.headerLength, areaEnd), fields, verdict);
  checkDataFile(fields, known, hasBackingName(fields), verdict);
  if (known.cryptHeader === undefined) refuseMissingCryptHeader(fields);
  const backingFileName = decodeBackingName(bytes, fields);
  verdict.settle();
  return {
    ...known,
    backingFileName,
    version: fields.version,
    clusterBits: fields.clusterBits,
    size: Number(fields.size),
    cryptMethod: fields.cryptMethod,
    l1Size: fields.l1Size,
    l1TableOffset: Number(fields.l1TableOffset),
    refcountTableOffset: Number(fields.refcountTableOffset),
    refcountTableClusters: fields.refcountTableClusters,
    snapshotCount: fields.snapshotCount,
    snapshotsOffset: Number(fields.snapshotsOffset),
    features: { incompatible: fields.incompatible, compatible: fields.compatible, autoclear: fields.autoclear },
    refcountOrder: fields.refcountOrder,
    headerLength: fields.headerLength,
    compressionType: fields.compressionType,
    unknownBytes: bytes.slice(FIRST_UNKNOWN_BYTE, Math.max(FIRST_UNKNOWN_BYTE, fields.headerLength)),
  };
}

/** Bytes from the start of the file that `parseHeader` looks at; at most one cluster. */
export function headerBytesNeeded(bytes: Uint8Array, fileSize: number): number {
  const fields = decodeFields(padded(bytes), fileSize);
  const areaEnd = extensionLimit(fields);
  const extensionsEnd = extensionAreaEnd(bytes, fields.headerLength, areaEnd);
  const nameEnd = fields.backingFileOffset === 0n ? 0 : areaEnd + fields.backingFileSize;
  return Math.min(fields.clusterSize, Math.max(fields.headerLength, extensionsEnd, nameEnd));
}

/** The fixed fields of a file that ends inside them read as zeros, as everything past the end does. */
function padded(bytes: Uint8Array): Uint8Array {
  if (bytes.length >= FIELDS_BYTES) return bytes;
  const whole = new Uint8Array(FIELDS_BYTES);
  whole.set(bytes);
  return whole;
}

/** Where the extension area ends at the latest: at the backing file name or the end of cluster 0. */
function extensionLimit(fields: HeaderFields): number {
  if (fields.backingFileOffset > fields.clusterSize) {
    throw new ZcowError(
      "QCOW2_BACKING_OFFSET",
      `Header: backing_file_offset ${fields.backingFileOffset} lies outside the first cluster of ${fields.clusterSize} bytes`,
      {
        data: {
          structure: "header",
          field: "backing_file_offset",
          offset: FIELD.backingFileOffset,
          value: fields.backingFileOffset,
          limit: fields.clusterSize,
        },
        stockText: "Invalid backing file offset",
      },
    );
  }
  return fields.backingFileOffset === 0n ? fields.clusterSize : Number(fields.backingFileOffset);
}

function coverageOf(fields: HeaderFields): number {
  const extendedL2 = (fields.incompatible & INCOMPATIBLE.extendedL2) !== 0n;
  const { version, clusterBits, refcountOrder } = fields;
  return qcow2Geometry({ size: 0, version, clusterBits, refcountOrder, extendedL2 }).l2Coverage;
}

function checkFeatures(bytes: Uint8Array, fields: HeaderFields, areaEnd: number, verdict: Verdict): void {
  const unknown = fields.incompatible & ~KNOWN_INCOMPATIBLE;
  const data = { structure: "header", field: "incompatible_features", offset: FIELD.incompatible };
  if (unknown !== 0n) {
    const names = nameIncompatibleBits(unknown, findFeatureNames(bytes, fields.headerLength, areaEnd));
    throw new ZcowError(
      "QCOW2_UNKNOWN_FEATURE",
      `Header: incompatible_features 0x${fields.incompatible.toString(16)} needs features that are not known: ${names}`,
      {
        data: { ...data, value: unknown, limit: KNOWN_INCOMPATIBLE },
        stockText: `Unsupported qcow2 feature(s): ${names}`,
      },
    );
  }
  if ((fields.incompatible & INCOMPATIBLE.corrupt) !== 0n && verdict.writable) {
    const fault = new ZcowError(
      "QCOW2_MARKED_CORRUPT",
      "Header: the image is marked corrupt (incompatible bit 1); it can be read or repaired, not written",
      {
        data: { ...data, value: fields.incompatible, limit: INCOMPATIBLE.corrupt },
        stockText: "qcow2: Image is corrupt; cannot be opened read/write",
      },
    );
    verdict.refuseUnless(verdict.mode === "check", fault);
  }
  if ((fields.incompatible & INCOMPATIBLE.extendedL2) !== 0n) checkExtendedL2(fields.clusterBits);
}

const ZSTD = 1;

function checkCompressionType(fields: HeaderFields): void {
  const type = fields.compressionType;
  const bit = (fields.incompatible & INCOMPATIBLE.compressionType) !== 0n;
  const data = {
    structure: "header",
    field: "compression_type",
    offset: FIELD.compressionType,
    value: type,
    limit: ZSTD,
  };
  if (type > ZSTD) {
    throw new ZcowError(
      "QCOW2_COMPRESSION_TYPE",
      `Header: compression_type ${type} is not known (0 deflate, ${ZSTD} zstd)`,
      {
        data,
        stockText: `qcow2: unknown compression type: ${type}`,
      },
    );
  }
  if (bit === (type !== 0)) return;
  const must = bit ? "must not be set" : "must be set";
  throw new ZcowError(
    "QCOW2_COMPRESSION_BIT",
    `Header: incompatible bit 3 (compression type) ${must} with compression_type ${type}`,
    {
      data,
      stockText: `qcow2: Compression type incompatible feature bit ${must}`,
    },
  );
}

function hasBackingName({ backingFileOffset, backingFileSize }: HeaderFields): boolean {
  return backingFileOffset !== 0n && backingFileSize !== 0;
}

function decodeBackingName(bytes: Uint8Array, fields: HeaderFields): string | undefined {
  if (!hasBackingName(fields)) return undefined;
  const start = Number(fields.backingFileOffset);
  const length = fields.backingFileSize;
  const room = Math.min(MAX_BACKING_NAME_BYTES, fields.clusterSize - start);
  if (length > room) {
    throw new ZcowError(
      "QCOW2_BACKING_NAME",
      `Header: backing_file_size ${length} is above ${room}: at most ${MAX_BACKING_NAME_BYTES} bytes, inside the first cluster of ${fields.clusterSize}`,
      {
        data: {
          structure: "header",
          field: "backing_file_size",
          offset: FIELD.backingFileSize,
          value: length,
          limit: room,
        },
        stockText: "Backing file name too long",
      },
    );
  }
  return decodeFileName(bytes.subarray(start, start + length));
}
