import { ZcowError } from "../../base/errors.js";
import { isPromise } from "../../base/maybe-promise.js";
import {
  badDump,
  DUMP_HEADER_BYTES,
  DUMP_RECORD_BYTES,
  decodeDumpHeader,
  decodeDumpPiece,
  decodeDumpRecord,
  encodeDumpHeader,
  encodeDumpRecord,
  MAX_DUMP_PIECE,
} from "../../codec/dump-records.js";
import type { FormatChoice } from "../../formats/open-image.js";
import { formatDriver, probeFormat } from "../../formats/registry.js";
import type { Storage } from "../../storage/storage.js";
import { isZero } from "../convert/zero-scan.js";

/** What of an image is dumped. */
export interface DumpImageOptions {
  readonly format: FormatChoice;
  /** The key slots of LUKS as well: with them and a passphrase the key is known. Default false. */
  readonly withKeys?: boolean;
}

/** What a dump holds. */
export interface DumpResult {
  /** Bytes of metadata that were found, zeros among them. */
  readonly metadataBytes: number;
  /** Bytes of the dump. */
  readonly dumpBytes: number;
  /** What could not be followed in a damaged image. */
  readonly notes: readonly string[];
}

/**
 * Writes the metadata of the qcow2 image in `image` to `dump`, an empty storage: what {@link restoreDump} makes of it has the same
 * header, tables and counts at the same places, and holes where the guest's data were. The image may be damaged. Names that the
 * image holds (of files, snapshots, bitmaps) are part of the dump; guest data and, unless asked for, LUKS key slots are not.
 *
 * Both stay open. Fails with `NOT_SUPPORTED` for other formats.
 */
export async function dumpImage(image: Storage, dump: Storage, options: DumpImageOptions): Promise<DumpResult> {
  const driver = options.format === "probe" ? await probeFormat(image) : formatDriver(options.format);
  if (driver.name !== "qcow2") {
    throw new ZcowError("NOT_SUPPORTED", `${image.name} is ${driver.name}; only qcow2 images can be dumped`, {
      data: { path: image.name, value: driver.name },
    });
  }
  const { metadataPieces } = await import("../../formats/qcow2/dump/metadata-pieces.js");
  const { pieces, notes } = await metadataPieces(image, options.withKeys ?? false);
  const writer = new DumpWriter(dump);
  await writer.put(encodeDumpHeader(image.size()));
  const buffer = new Uint8Array(MAX_DUMP_PIECE);
  let metadataBytes = 0;
  for (const { offset, length } of pieces) {
    metadataBytes += length;
    for (let at = offset; at < offset + length; at += MAX_DUMP_PIECE) {
      const piece = buffer.subarray(0, Math.min(MAX_DUMP_PIECE, offset + length - at));
      const wait = image.read(at, piece);
      if (isPromise(wait)) await wait;
      if (!isZero(piece)) await writer.put(encodeDumpRecord(at, piece));
    }
  }
  await writer.put(encodeDumpRecord(image.size(), new Uint8Array(0)));
  const wait = dump.flush();
  if (isPromise(wait)) await wait;
  return { metadataBytes, dumpBytes: writer.bytes, notes };
}

class DumpWriter {
  bytes = 0;
  readonly #storage: Storage;

  constructor(storage: Storage) {
    this.#storage = storage;
  }

  async put(bytes: Uint8Array): Promise<void> {
    const wait = this.#storage.write(this.bytes, bytes);
    if (isPromise(wait)) await wait;
    this.bytes += bytes.length;
  }
}

/**
 * Makes `image`, an empty storage, what was dumped into `dump`. Both stay open. Fails with `DUMP_FORMAT`; then `image` is no image yet,
 * because its start is written last.
 */
export async function restoreDump(dump: Storage, image: Storage): Promise<void> {
  const read = async (at: number, length: number): Promise<Uint8Array> => {
    if (at + length > dump.size()) throw badDump(`it ends at byte ${dump.size()}, before its last record`, at);
    const bytes = new Uint8Array(length);
    const wait = dump.read(at, bytes);
    if (isPromise(wait)) await wait;
    return bytes;
  };
  const fileBytes = decodeDumpHeader(await read(0, DUMP_HEADER_BYTES));
  const truncated = image.truncate(fileBytes);
  if (isPromise(truncated)) await truncated;
  let start: Uint8Array | undefined;
  let end = 0;
  for (let at = DUMP_HEADER_BYTES; ; ) {
    const record = decodeDumpRecord(await read(at, DUMP_RECORD_BYTES), at, fileBytes);
    if (record.at < end) throw badDump(`the piece at ${record.at} comes after one that ends at ${end}`, at);
    if (record.length === 0) break;
    const piece = decodeDumpPiece(record, await read(at + DUMP_RECORD_BYTES, record.storedLength), at);
    if (record.at === 0) start = piece;
    else await put(image, record.at, piece);
    end = record.at + record.length;
    at += DUMP_RECORD_BYTES + record.storedLength;
  }
  if (start !== undefined) await put(image, 0, start);
  const flushed = image.flush();
  if (isPromise(flushed)) await flushed;
}

async function put(image: Storage, at: number, bytes: Uint8Array): Promise<void> {
  const wait = image.write(at, bytes);
  if (isPromise(wait)) await wait;
}
