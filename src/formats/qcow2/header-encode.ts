import { viewOf, writeU64 } from "../../base/bytes.js";
import { ZcowError } from "../../base/errors.js";
import {
  END_MARKER_BYTES,
  EXTENSION,
  encodeFeatureNames,
  extensionsLength,
  withExtension,
  writeExtensions,
} from "./extensions.js";
import { encodeFileName } from "./file-name.js";
import type { FeatureName, Qcow2Header, UnresolvedHeader } from "./header.js";
import { FIELD, FIRST_UNKNOWN_BYTE, QCOW2_MAGIC } from "./header-fields.js";
import type { ZonedExtension } from "./zoned-extension.js";
import { encodeZonedExtension } from "./zoned-layouts.js";

/**
 * Cluster 0 for `header`: fixed fields, unknown bytes, `extensions` as they stand, end marker and backing file name;
 * the rest zero, so that nothing of an older header stays behind. Always one whole cluster, to be written at once.
 *
 * Only `extensions` is written, not what was decoded from it: change it with `withZonedExtension` and its like.
 * The backing file name follows the extensions, at byte `nameFrom` or later. Throws `QCOW2_HEADER_FULL` when it does not fit.
 */
export function encodeHeader(header: UnresolvedHeader | Qcow2Header, nameFrom = 0): Uint8Array {
  const clusterSize = 2 ** header.clusterBits;
  const name = header.backingFileName === undefined ? undefined : encodeFileName(header.backingFileName);
  const markerAt = header.headerLength + extensionsLength(header.extensions);
  const needed = markerAt + (name?.length ?? 0);
  // The area also ends at the name or the cluster, so the marker can be left out where there is no room for it.
  const behindMarker = needed + END_MARKER_BYTES <= clusterSize ? markerAt + END_MARKER_BYTES : markerAt;
  const nameAt = Math.max(behindMarker, nameFrom);
  if (needed > clusterSize) {
    throw new ZcowError(
      "QCOW2_HEADER_FULL",
      `The header with its extensions and names needs ${needed} bytes, but the first cluster has ${clusterSize}`,
      {
        data: { structure: "header", field: "extensions", value: needed, limit: clusterSize },
      },
    );
  }
  const bytes = new Uint8Array(clusterSize);
  writeFields(viewOf(bytes), header);
  if (header.version === 3) writeVersion3(bytes, header);
  writeExtensions(bytes, header.headerLength, header.extensions);
  if (name !== undefined) {
    writeU64(viewOf(bytes), FIELD.backingFileOffset, nameAt);
    viewOf(bytes).setUint32(FIELD.backingFileSize, name.length);
    bytes.set(name, nameAt);
  }
  return bytes;
}

function writeFields(view: DataView, header: UnresolvedHeader): void {
  view.setUint32(FIELD.magic, QCOW2_MAGIC);
  view.setUint32(FIELD.version, header.version);
  view.setUint32(FIELD.clusterBits, header.clusterBits);
  writeU64(view, FIELD.size, header.size);
  view.setUint32(FIELD.cryptMethod, header.cryptMethod);
  view.setUint32(FIELD.l1Size, header.l1Size);
  writeU64(view, FIELD.l1TableOffset, header.l1TableOffset);
  writeU64(view, FIELD.refcountTableOffset, header.refcountTableOffset);
  view.setUint32(FIELD.refcountTableClusters, header.refcountTableClusters);
  view.setUint32(FIELD.snapshotCount, header.snapshotCount);
  writeU64(view, FIELD.snapshotsOffset, header.snapshotsOffset);
}

function writeVersion3(bytes: Uint8Array, header: UnresolvedHeader): void {
  const view = viewOf(bytes);
  view.setBigUint64(FIELD.incompatible, header.features.incompatible);
  view.setBigUint64(FIELD.compatible, header.features.compatible);
  view.setBigUint64(FIELD.autoclear, header.features.autoclear);
  view.setUint32(FIELD.refcountOrder, header.refcountOrder);
  view.setUint32(FIELD.headerLength, header.headerLength);
  if (header.headerLength <= FIELD.compressionType) return;
  view.setUint8(FIELD.compressionType, header.compressionType);
  bytes.set(header.unknownBytes.subarray(0, header.headerLength - FIRST_UNKNOWN_BYTE), FIRST_UNKNOWN_BYTE);
}

/** The header with another zoned extension (its place among the extensions kept), or without one. */
export function withZonedExtension(header: Qcow2Header, zoned: ZonedExtension | undefined): Qcow2Header {
  const data = zoned === undefined ? undefined : encodeZonedExtension(zoned);
  return { ...header, zoned, extensions: withExtension(header.extensions, EXTENSION.zoned, data) };
}

/** The header with another feature name table, or without one when `names` is empty. */
export function withFeatureNames<H extends UnresolvedHeader>(header: H, names: readonly FeatureName[]): H {
  const data = names.length === 0 ? undefined : encodeFeatureNames(names);
  return { ...header, featureNames: names, extensions: withExtension(header.extensions, EXTENSION.featureNames, data) };
}
