import { viewOf } from "../../base/bytes.js";
import { ZcowError } from "../../base/errors.js";
import {
  HEADER_LENGTH_V2,
  KNOWN_HEADER_LENGTH,
  MAX_CLUSTER_BITS,
  MIN_CLUSTER_BITS,
  MIN_EXTENDED_L2_CLUSTER_BITS,
  MIN_HEADER_LENGTH_V3,
  SUBCLUSTERS,
} from "./limits.js";

/** "QFI\xfb" */
export const QCOW2_MAGIC = 0x514649fb;

/** The start of a file is that of a qcow2 image. */
export function hasQcow2Magic(head: Uint8Array): boolean {
  return head.length >= 4 && viewOf(head).getUint32(0) === QCOW2_MAGIC;
}

/** Byte offset of each header field (qcow2 specification, "Header"), big-endian. */
export const FIELD = {
  magic: 0,
  version: 4,
  backingFileOffset: 8,
  backingFileSize: 16,
  clusterBits: 20,
  size: 24,
  cryptMethod: 32,
  l1Size: 36,
  l1TableOffset: 40,
  refcountTableOffset: 48,
  refcountTableClusters: 56,
  snapshotCount: 60,
  snapshotsOffset: 64,
  incompatible: 72,
  compatible: 80,
  autoclear: 88,
  refcountOrder: 96,
  headerLength: 100,
  compressionType: 104,
} as const;

/** First byte after the last field known here; the rest of the header is kept verbatim. */
export const FIRST_UNKNOWN_BYTE = FIELD.compressionType + 1;

/** The fields as stored: 64-bit ones as bigint, because hostile values are judged before they become numbers. */
export interface HeaderFields {
  readonly version: 2 | 3;
  readonly backingFileOffset: bigint;
  readonly backingFileSize: number;
  readonly clusterBits: number;
  readonly clusterSize: number;
  readonly size: bigint;
  readonly cryptMethod: number;
  readonly l1Size: number;
  readonly l1TableOffset: bigint;
  readonly refcountTableOffset: bigint;
  readonly refcountTableClusters: number;
  readonly snapshotCount: number;
  readonly snapshotsOffset: bigint;
  readonly incompatible: bigint;
  readonly compatible: bigint;
  readonly autoclear: bigint;
  readonly refcountOrder: number;
  readonly headerLength: number;
  readonly compressionType: number;
}

/** Bytes that `decodeFields` needs; less is padded with zeros by the caller. */
export const FIELDS_BYTES = KNOWN_HEADER_LENGTH;

/**
 * Decodes the fixed fields and checks those that the meaning of all others hangs on.
 * Throws `QCOW2_MAGIC`, `QCOW2_VERSION`, `QCOW2_TRUNCATED`, `QCOW2_CLUSTER_SIZE`, `QCOW2_HEADER_TOO_SHORT`,
 * `QCOW2_HEADER_TOO_LONG`, `QCOW2_HEADER_ALIGNMENT`, `QCOW2_EXTENDED_L2`.
 */
export function decodeFields(bytes: Uint8Array, fileSize: number): HeaderFields {
  const view = viewOf(bytes);
  const version = checkIdentity(view, fileSize);
  const clusterBits = view.getUint32(FIELD.clusterBits);
  if (clusterBits < MIN_CLUSTER_BITS || clusterBits > MAX_CLUSTER_BITS) throw badClusterBits(clusterBits);
  const clusterSize = 2 ** clusterBits;
  const isV3 = version === 3;
  const headerLength = isV3 ? view.getUint32(FIELD.headerLength) : HEADER_LENGTH_V2;
  if (isV3) checkHeaderLength(headerLength, clusterSize);
  return {
    version,
    backingFileOffset: view.getBigUint64(FIELD.backingFileOffset),
    backingFileSize: view.getUint32(FIELD.backingFileSize),
    clusterBits,
    clusterSize,
    size: view.getBigUint64(FIELD.size),
    cryptMethod: view.getUint32(FIELD.cryptMethod),
    l1Size: view.getUint32(FIELD.l1Size),
    l1TableOffset: view.getBigUint64(FIELD.l1TableOffset),
    refcountTableOffset: view.getBigUint64(FIELD.refcountTableOffset),
    refcountTableClusters: view.getUint32(FIELD.refcountTableClusters),
    snapshotCount: view.getUint32(FIELD.snapshotCount),
    snapshotsOffset: view.getBigUint64(FIELD.snapshotsOffset),
    incompatible: isV3 ? view.getBigUint64(FIELD.incompatible) : 0n,
    compatible: isV3 ? view.getBigUint64(FIELD.compatible) : 0n,
    autoclear: isV3 ? view.getBigUint64(FIELD.autoclear) : 0n,
    refcountOrder: isV3 ? view.getUint32(FIELD.refcountOrder) : 4,
    headerLength,
    compressionType: headerLength > FIELD.compressionType ? view.getUint8(FIELD.compressionType) : 0,
  };
}

function checkIdentity(view: DataView, fileSize: number): 2 | 3 {
  const magic = view.getUint32(FIELD.magic);
  if (magic !== QCOW2_MAGIC) {
    throw new ZcowError(
      "QCOW2_MAGIC",
      `The file starts with 0x${magic.toString(16).padStart(8, "0")}, not with the qcow2 magic 0x514649fb`,
      {
        data: { structure: "header", field: "magic", offset: FIELD.magic, value: magic, limit: QCOW2_MAGIC },
        stockText: "Image is not in qcow2 format",
      },
    );
  }
  const version = view.getUint32(FIELD.version);
  if (version !== 2 && version !== 3) {
    throw new ZcowError("QCOW2_VERSION", `Header: version ${version} is not supported, only 2 and 3 are`, {
      data: { structure: "header", field: "version", offset: FIELD.version, value: version, limit: 3 },
      stockText: `Unsupported qcow2 version ${version}`,
    });
  }
  if (version === 2 && fileSize < HEADER_LENGTH_V2) {
    throw new ZcowError(
      "QCOW2_TRUNCATED",
      `The file ends at byte ${fileSize}, inside the version 2 header of ${HEADER_LENGTH_V2} bytes`,
      {
        data: { structure: "header", field: "file size", value: fileSize, limit: HEADER_LENGTH_V2 },
      },
    );
  }
  return version;
}

function badClusterBits(clusterBits: number): ZcowError {
  return new ZcowError(
    "QCOW2_CLUSTER_SIZE",
    `Header: cluster_bits ${clusterBits} is outside the supported range ${MIN_CLUSTER_BITS} to ${MAX_CLUSTER_BITS} (512 bytes to 2 MiB)`,
    {
      data: {
        structure: "header",
        field: "cluster_bits",
        offset: FIELD.clusterBits,
        value: clusterBits,
        limit: clusterBits < MIN_CLUSTER_BITS ? MIN_CLUSTER_BITS : MAX_CLUSTER_BITS,
      },
      stockText: `Unsupported cluster size: 2^${clusterBits}`,
    },
  );
}

function checkHeaderLength(headerLength: number, clusterSize: number): void {
  const data = { structure: "header", field: "header_length", offset: FIELD.headerLength, value: headerLength };
  if (headerLength < MIN_HEADER_LENGTH_V3) {
    throw new ZcowError(
      "QCOW2_HEADER_TOO_SHORT",
      `Header: header_length ${headerLength} is below ${MIN_HEADER_LENGTH_V3}, the least of version 3`,
      { data: { ...data, limit: MIN_HEADER_LENGTH_V3 }, stockText: "qcow2 header too short" },
    );
  }
  if (headerLength > clusterSize) {
    throw new ZcowError(
      "QCOW2_HEADER_TOO_LONG",
      `Header: header_length ${headerLength} exceeds the cluster size ${clusterSize}`,
      {
        data: { ...data, limit: clusterSize },
        stockText: "qcow2 header exceeds cluster size",
      },
    );
  }
  if (headerLength % 8 !== 0) {
    throw new ZcowError("QCOW2_HEADER_ALIGNMENT", `Header: header_length ${headerLength} is not a multiple of 8`, {
      data: { ...data, limit: 8 },
    });
  }
}

/** Extended L2 entries need subclusters (cluster size / 32) of at least one sector. */
export function checkExtendedL2(clusterBits: number): void {
  if (clusterBits >= MIN_EXTENDED_L2_CLUSTER_BITS) return;
  const subcluster = 2 ** clusterBits / SUBCLUSTERS;
  throw new ZcowError(
    "QCOW2_EXTENDED_L2",
    `Header: extended L2 entries need cluster_bits of at least ${MIN_EXTENDED_L2_CLUSTER_BITS}, not ${clusterBits} (subclusters of ${subcluster} bytes)`,
    {
      data: {
        structure: "header",
        field: "cluster_bits",
        offset: FIELD.clusterBits,
        value: clusterBits,
        limit: MIN_EXTENDED_L2_CLUSTER_BITS,
      },
      stockText: `Unsupported subcluster size: ${subcluster}`,
    },
  );
}
