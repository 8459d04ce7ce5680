import { crc32 } from "node:zlib";
import { viewOf } from "../base/bytes.js";
import { KiB } from "../base/units.js";

/**
 * The file of a change journal: a header, then batches, each of which holds records. All integers are little-endian.
 *
 *     header   0 "zcowJRNL"  8 version u32  12 CRC-32 u32 of the header with zeros here  16 session  32 boot id
 *     batch    0 "BTCH"  4 bytes of records u32  8 number u32  12 flags u32  16 CRC-32 u32 of bytes 0-15 and the records
 *     record   0 stage u32  4 length u32  8 offset u64  16 bytes, filled up to a multiple of 4
 *
 * A batch counts whole or not at all: a process that is killed while it writes one leaves a part, which ends the journal.
 */

export const JOURNAL_HEADER_BYTES = 48;
export const SESSION_BYTES = 16;
const BATCH_HEADER_BYTES = 20;
const RECORD_HEADER_BYTES = 16;
const MAGIC = new TextEncoder().encode("zcowJRNL");
const BATCH_MAGIC = 0x48435442;
/** Those who know only version 1 would put records of stage 5 into the image. */
const VERSION = 2;
const OLDEST_VERSION = 1;
/** The batch says everything that is not in the image yet: what comes before it does not count any more. */
const FLAG_CHECKPOINT = 1;
const FIRST_BUFFER_BYTES = 64 * KiB;
const TWO_32 = 0x1_0000_0000;

/** Bytes that belong at `offset` of the image. Records of a lower stage must be durable before those of a higher one are written. */
export interface JournalRecord {
  readonly stage: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export interface JournalHeader {
  readonly session: Uint8Array;
  readonly bootId: Uint8Array;
}

export function encodeJournalHeader({ session, bootId }: JournalHeader): Uint8Array {
  const bytes = new Uint8Array(JOURNAL_HEADER_BYTES);
  const view = viewOf(bytes);
  bytes.set(MAGIC);
  view.setUint32(8, VERSION, true);
  bytes.set(session, 16);
  bytes.set(bootId, 32);
  view.setUint32(12, crc32(bytes), true);
  return bytes;
}

/** The header at the start of `bytes`; undefined when that is none, or one of another version. */
export function decodeJournalHeader(bytes: Uint8Array): JournalHeader | undefined {
  if (bytes.length < JOURNAL_HEADER_BYTES) return undefined;
  const header = bytes.slice(0, JOURNAL_HEADER_BYTES);
  const view = viewOf(header);
  const sum = view.getUint32(12, true);
  view.setUint32(12, 0, true);
  const version = view.getUint32(8, true);
  const isKnown = version >= OLDEST_VERSION && version <= VERSION;
  const isHeader = isKnown && MAGIC.every((byte, index) => header[index] === byte);
  if (!isHeader || crc32(header) !== sum) return undefined;
  return { session: header.slice(16, 32), bootId: header.slice(32, 48) };
}

/** Collects the records of one batch in memory that is used again for the next. */
export class BatchEncoder {
  #bytes = new Uint8Array(FIRST_BUFFER_BYTES);
  #view = viewOf(this.#bytes);
  #length = BATCH_HEADER_BYTES;

  get isEmpty(): boolean {
    return this.#length === BATCH_HEADER_BYTES;
  }

  add(stage: number, offset: number, bytes: Uint8Array): void {
    const at = this.#length;
    const end = at + RECORD_HEADER_BYTES + ((bytes.length + 3) & ~3);
    if (end > this.#bytes.length) this.#grow(end);
    const view = this.#view;
    view.setUint32(at, stage, true);
    view.setUint32(at + 4, bytes.length, true);
    view.setUint32(at + 8, offset % TWO_32, true);
    view.setUint32(at + 12, Math.floor(offset / TWO_32), true);
    this.#bytes.fill(0, end - 4, end);
    this.#bytes.set(bytes, at + RECORD_HEADER_BYTES);
    this.#length = end;
  }

  /** The batch with all records added since the last call, valid until the next `add`. */
  finish(number: number, checkpoint: boolean): Uint8Array {
    const view = this.#view;
    view.setUint32(0, BATCH_MAGIC, true);
    view.setUint32(4, this.#length - BATCH_HEADER_BYTES, true);
    view.setUint32(8, number, true);
    view.setUint32(12, checkpoint ? FLAG_CHECKPOINT : 0, true);
    view.setUint32(16, batchSum(this.#bytes.subarray(0, this.#length)), true);
    const batch = this.#bytes.subarray(0, this.#length);
    this.#length = BATCH_HEADER_BYTES;
    return batch;
  }

  #grow(atLeast: number): void {
    const bytes = new Uint8Array(Math.max(atLeast, this.#bytes.length * 2));
    bytes.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = bytes;
    this.#view = viewOf(bytes);
  }
}

function batchSum(batch: Uint8Array): number {
  return crc32(batch.subarray(BATCH_HEADER_BYTES), crc32(batch.subarray(0, 16)));
}

/** The records that count, in the order in which they were made: those of all whole batches since the last checkpoint. */
export function decodeJournal(bytes: Uint8Array): JournalRecord[] {
  const view = viewOf(bytes);
  let records: JournalRecord[] = [];
  let number: number | undefined;
  for (let at = JOURNAL_HEADER_BYTES; at + BATCH_HEADER_BYTES <= bytes.length; ) {
    const end = at + BATCH_HEADER_BYTES + view.getUint32(at + 4, true);
    if (view.getUint32(at, true) !== BATCH_MAGIC || end > bytes.length) break;
    const batch = bytes.subarray(at, end);
    const isNext = number === undefined || view.getUint32(at + 8, true) === (number + 1) >>> 0;
    if (!isNext || batchSum(batch) !== view.getUint32(at + 16, true)) break;
    number = view.getUint32(at + 8, true);
    if ((view.getUint32(at + 12, true) & FLAG_CHECKPOINT) !== 0) records = [];
    records.push(...recordsOf(batch));
    at = end;
  }
  return records;
}

function* recordsOf(batch: Uint8Array): Generator<JournalRecord> {
  const view = viewOf(batch);
  for (let at = BATCH_HEADER_BYTES; at + RECORD_HEADER_BYTES <= batch.length; ) {
    const length = view.getUint32(at + 4, true);
    const start = at + RECORD_HEADER_BYTES;
    if (length > batch.length - start) return;
    const offset = view.getUint32(at + 8, true) + view.getUint32(at + 12, true) * TWO_32;
    yield { stage: view.getUint32(at, true), offset, bytes: batch.subarray(start, start + length) };
    at = start + ((length + 3) & ~3);
  }
}
