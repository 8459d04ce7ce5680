import { viewOf, writeU64 } from "../../base/bytes.js";
import { ZcowError } from "../../base/errors.js";
import { AUTOCLEAR } from "./features.js";
import type { BitmapDirectory } from "./header.js";
import type { HeaderFields } from "./header-fields.js";
import type { Verdict } from "./header-verdict.js";
import { MAX_BITMAP_DIRECTORY_BYTES, MAX_BITMAPS, MAX_HOST_OFFSET } from "./limits.js";

const BITMAPS_BYTES = 24;

/** The autoclear bit says that there are bitmaps: then there must be the extension. Puts off `QCOW2_BITMAPS`. */
export function refuseMissingBitmaps({ autoclear }: HeaderFields, verdict: Verdict): void {
  if ((autoclear & AUTOCLEAR.bitmaps) !== 0n) verdict.refuseLaterUnless(!verdict.writable, bitmapsMissing(autoclear));
}

/**
 * The bitmaps extension (qcow2 specification, "Bitmaps extension"); undefined when its autoclear bit says that its
 * bitmaps are stale. Throws `QCOW2_BITMAPS`.
 */
export function decodeBitmaps(data: Uint8Array, fields: HeaderFields, verdict: Verdict): BitmapDirectory | undefined {
  const valid = (fields.autoclear & AUTOCLEAR.bitmaps) !== 0n;
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

/** The data of the extension for `directory`. */
export function encodeBitmapsExtension({ count, offset, length }: BitmapDirectory): Uint8Array {
  const data = new Uint8Array(BITMAPS_BYTES);
  viewOf(data).setUint32(0, count);
  writeU64(viewOf(data), 8, length);
  writeU64(viewOf(data), 16, offset);
  return data;
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
