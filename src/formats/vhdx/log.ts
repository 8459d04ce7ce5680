import { viewOf } from "../../base/bytes.js";
import { ZcowError } from "../../base/errors.js";
import { KiB, MiB } from "../../base/units.js";
import { crc32c } from "../../codec/crc32c.js";
import type { Storage } from "../../storage/storage.js";
import type { Patch } from "./patched-storage.js";
import type { VhdxHeader } from "./structures.js";

/** Unit of the log: entries start at its multiples, data comes in pieces of it. */
const SECTOR = 4 * KiB;
const ENTRY_HEADER = 64;
const DESCRIPTOR = 32;
/** Windows and stock tools make logs of 1 MiB. */
const MAX_LOG = 16 * MiB;
/** Entries do not overlap; what claims more than a few logs' worth of them is made to waste time. */
const MAX_LOGS_OF_ENTRIES = 4;
/** Each is looked at in every read. */
const MAX_PATCHES = 65_536;

/** An entry that keeps all rules but those about its neighbours. Offsets in bytes from the start of the log. */
interface LogEntry {
  readonly at: number;
  readonly length: number;
  readonly tail: number;
  readonly sequence: bigint;
  readonly descriptors: number;
  readonly flushedSize: number;
  /** Its bytes, unrolled where it wraps around the end of the log. */
  readonly bytes: Uint8Array;
}

/** What replaying the log would write, and the length the file would then have. */
export interface LogContents {
  readonly patches: readonly Patch[];
  readonly fileSize: number;
}

/**
 * The changes that the log of a VHDX holds because its writer ended before they were in place (MS-VHDX 2.3).
 *
 * Fails with `FORMAT_FIELD` when a log that must be replayed has no valid sequence of entries, and with `FORMAT_VARIANT`
 * when it is longer than 16 MiB or holds more than 65,536 changes.
 */
export async function readLog(storage: Storage, header: VhdxHeader): Promise<LogContents> {
  const { logOffset, logLength } = header;
  const data = { path: storage.name, structure: "VHDX log", offset: logOffset, length: logLength };
  if (logLength === 0 || logLength % MiB !== 0 || logOffset < MiB || logOffset % MiB !== 0) {
    throw new ZcowError(
      "FORMAT_FIELD",
      `${storage.name}: the VHDX log, ${logLength} bytes at ${logOffset}, is not in whole MiB behind the first`,
      { data },
    );
  }
  if (logLength > MAX_LOG) throw tooLarge(storage, `${logLength} bytes`, MAX_LOG);
  const log = new Uint8Array(logLength);
  await storage.read(logOffset, log);
  const active = activeSequence(log, header.logGuid ?? "");
  const head = active.at(-1);
  if (head === undefined) {
    throw new ZcowError(
      "FORMAT_FIELD",
      `${storage.name}: the VHDX log must be replayed and holds no valid sequence of entries`,
      { data },
    );
  }
  if (head.flushedSize > storage.size()) {
    throw new ZcowError(
      "FORMAT_TRUNCATED",
      `${storage.name}: the log needs a file of ${head.flushedSize} bytes, it has ${storage.size()}`,
      { data },
    );
  }
  const patches: Patch[] = [];
  for (const entry of active) {
    for (const patch of patchesOf(entry)) {
      if (patches.push(patch) > MAX_PATCHES) throw tooLarge(storage, "more changes", MAX_PATCHES);
    }
  }
  return { patches, fileSize: active.reduce((size, entry) => Math.max(size, lastSize(entry)), storage.size()) };
}

function tooLarge(storage: Storage, found: string, limit: number): ZcowError {
  return new ZcowError("FORMAT_VARIANT", `${storage.name}: the VHDX log has ${found}; at most ${limit} are taken`, {
    data: { path: storage.name, structure: "VHDX log", limit },
  });
}

/** The sequence that ends with the newest entry, from that entry's tail on. */
function activeSequence(log: Uint8Array, guid: string): LogEntry[] {
  const parsed = new Map<number, LogEntry | undefined>();
  let budget = MAX_LOGS_OF_ENTRIES * log.length;
  const entryAt = (at: number): LogEntry | undefined => {
    if (!parsed.has(at)) {
      const length = claimedLength(log, at);
      budget -= length;
      parsed.set(at, length === 0 || budget < 0 ? undefined : parseEntry(log, at, length, guid));
    }
    return parsed.get(at);
  };
  let newest: LogEntry[] = [];
  const covered = new Set<number>();
  for (let start = 0; start < log.length; start += SECTOR) {
    if (covered.has(start)) continue;
    const sequence = sequenceFrom(start, log.length, entryAt);
    for (const entry of sequence) covered.add(entry.at);
    const head = sequence.at(-1);
    const tail = sequence.findIndex((entry) => entry.at === head?.tail);
    if (head === undefined || tail < 0) continue;
    if (newest.length === 0 || head.sequence > (newest.at(-1) as LogEntry).sequence) newest = sequence.slice(tail);
  }
  return newest;
}

function sequenceFrom(start: number, logLength: number, entryAt: (at: number) => LogEntry | undefined): LogEntry[] {
  const sequence: LogEntry[] = [];
  let used = 0;
  for (let at = start; used < logLength; ) {
    const entry = entryAt(at);
    const last = sequence.at(-1);
    if (entry === undefined || (last !== undefined && entry.sequence !== last.sequence + 1n)) break;
    sequence.push(entry);
    used += entry.length;
    at = (at + entry.length) % logLength;
  }
  return sequence;
}

/** The length of the entry that seems to start at `at`; 0 when none does. */
function claimedLength(log: Uint8Array, at: number): number {
  const view = viewOf(log);
  if (view.getUint32(at, true) !== 0x6567_6f6c /* "loge" */) return 0;
  const length = view.getUint32(at + 8, true);
  return length % SECTOR === 0 && length <= log.length ? length : 0;
}

function parseEntry(log: Uint8Array, at: number, length: number, guid: string): LogEntry | undefined {
  const view = viewOf(log);
  const tail = view.getUint32(at + 12, true);
  const sequence = view.getBigUint64(at + 16, true);
  const descriptors = view.getUint32(at + 24, true);
  if (tail % SECTOR !== 0 || tail >= log.length || sequence === 0n) return undefined;
  if (descriptorBytes(descriptors) > length) return undefined;
  const bytes = new Uint8Array(length);
  const first = Math.min(length, log.length - at);
  bytes.set(log.subarray(at, at + first));
  bytes.set(log.subarray(0, length - first), first);
  const entry = viewOf(bytes);
  const checksum = entry.getUint32(4, true);
  entry.setUint32(4, 0, true);
  if (crc32c(bytes, 0, length) !== checksum) return undefined;
  const owner = Array.from(bytes.subarray(32, 48), (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (owner !== guid) return undefined;
  return { at, length, tail, sequence, descriptors, flushedSize: safe(entry, 48), bytes };
}

/** Bytes of the entry's header and descriptors, in whole sectors. */
function descriptorBytes(count: number): number {
  return Math.ceil((ENTRY_HEADER + count * DESCRIPTOR) / SECTOR) * SECTOR;
}

function lastSize(entry: LogEntry): number {
  return safe(viewOf(entry.bytes), 56);
}

/** Numbers beyond what a file can have stand for "too much"; no file satisfies them. */
function safe(view: DataView, at: number): number {
  return Number(view.getBigUint64(at, true));
}

/** The changes of one entry, in order. The first invalid descriptor ends the entry: its checksum was right, so the writer erred. */
function* patchesOf(entry: LogEntry): Generator<Patch> {
  const view = viewOf(entry.bytes);
  let dataAt = descriptorBytes(entry.descriptors);
  for (let index = 0; index < entry.descriptors; index++) {
    const at = ENTRY_HEADER + index * DESCRIPTOR;
    const kind = view.getUint32(at, true);
    const target = safe(view, at + 16);
    if (kind === 0x6f72_657a /* "zero" */) {
      yield { at: target, length: safe(view, at + 8), bytes: undefined };
    } else if (kind === 0x6373_6564 /* "desc" */ && dataAt + SECTOR <= entry.length) {
      const bytes = entry.bytes.slice(dataAt, dataAt + SECTOR);
      bytes.set(entry.bytes.subarray(at + 8, at + 16));
      bytes.set(entry.bytes.subarray(at + 4, at + 8), SECTOR - 4);
      yield { at: target, length: SECTOR, bytes };
      dataAt += SECTOR;
    } else {
      return;
    }
  }
}
