import { randomBytes } from "node:crypto";
import { ZcowError } from "../base/errors.js";
import { MiB } from "../base/units.js";
import { bootId } from "../host/boot-id.js";
import {
  BatchEncoder,
  decodeJournal,
  decodeJournalHeader,
  encodeJournalHeader,
  JOURNAL_HEADER_BYTES,
  type JournalRecord,
  SESSION_BYTES,
} from "./journal-codec.js";
import type { JournalPlace } from "./journal-file.js";

/** Takes bytes that belong at `offset` of the image. They are copied during the call. */
export type AddRecord = (stage: number, offset: number, bytes: Uint8Array) => void;

/** A holder of changes that are in memory and not in the image yet. */
export interface ChangeSource {
  /** Adds what changed since the last call, as it is now. */
  takeChanges(add: AddRecord): void;
  /** Adds all that may not be in the image yet, as it is now. */
  allUnsaved(add: AddRecord): void;
}

/** A checkpoint writes a new file when the old one is longer than this. */
const COMFORTABLE_BYTES = MiB;
/** Above this the image should be flushed, which lets the journal begin anew. */
const LARGE_BYTES = 32 * MiB;
/** Flushes do not succeed: the journal ends rather than fill the disk. */
const MAX_BYTES = 256 * MiB;

/**
 * What a killed process would have kept in memory.
 *
 * A program that answers for somebody else's writes (a server) acknowledges them when the data is in the page cache and the
 * change of the tables is in memory; a flush makes both durable, in an order that a power cut cannot hurt. But a host that finds
 * the server gone and then back does not know that anything was lost, and never writes it again. So before it acknowledges, the
 * server calls `commit`, which appends the changes of the tables to a file, in the page cache like the data. When the
 * process is killed, whoever opens the image next finishes the interrupted flush from there (`replayJournal`). When the
 * machine stops, page cache and memory are gone together; the journal of an earlier boot is ignored.
 *
 * Invariant: the image as the page cache has it, with the records applied in order, is what the tables were at the last
 * `commit`. So whoever writes tables to the image commits first, and `checkpoint` comes before clusters that are free
 * since a flush get another use: an old record must not fall on new contents.
 */
export class ChangeJournal {
  /** Asked for when the journal has grown large: flushes the image. */
  onLarge: (() => void) | undefined = undefined;
  /** Told once when the journal cannot be written: from then on, until it can, a kill loses what is not flushed. */
  onFailure: ((error: unknown) => void) | undefined = undefined;
  readonly #place: JournalPlace;
  readonly #sources: ChangeSource[] = [];
  readonly #encoder = new BatchEncoder();
  readonly #add: AddRecord = (stage, offset, bytes) => this.#encoder.add(stage, offset, bytes);
  #header: Uint8Array | undefined;
  #touched = false;
  #failed = false;
  /** What is in the file is wrong, and it could not be removed. */
  #stale = false;
  #asked = false;
  #length = 0;
  #number = 0;

  constructor(place: JournalPlace) {
    this.#place = place;
  }

  get name(): string {
    return this.#place.name;
  }

  /** Between `begin` and `end`. */
  get isActive(): boolean {
    return this.#header !== undefined;
  }

  register(source: ChangeSource): void {
    this.#sources.push(source);
  }

  /** A source has changes to take. */
  touch(): void {
    this.#touched = true;
  }

  /**
   * The records that `session` left in this boot; undefined when there are none that can be trusted. Throws the codes of
   * the place.
   */
  recordsOf(session: Uint8Array): JournalRecord[] | undefined {
    const bytes = this.#place.load();
    const boot = bootId();
    if (bytes === undefined || boot === undefined) return undefined;
    const header = decodeJournalHeader(bytes);
    if (header === undefined || !sameBytes(header.session, session) || !sameBytes(header.bootId, boot))
      return undefined;
    return decodeJournal(bytes);
  }

  /** Begins an empty journal; what was there is gone. Returns its session. `STORAGE_UNSUPPORTED`, and the codes of the place. */
  begin(): Uint8Array {
    const boot = bootId();
    if (boot === undefined) {
      throw new ZcowError(
        "STORAGE_UNSUPPORTED",
        "this system does not tell one boot from another, so no journal can be kept",
      );
    }
    const session = new Uint8Array(randomBytes(SESSION_BYTES));
    const header = encodeJournalHeader({ session, bootId: boot });
    this.#place.replace(header);
    this.#header = header;
    this.#length = JOURNAL_HEADER_BYTES;
    this.#failed = false;
    return session;
  }

  /**
   * Everything that has changed is in the journal when this returns. Throws only when it could not be written and the
   * journal could not be made void either: then nothing may be acknowledged.
   */
  commit(): void {
    if (this.#stale) this.#makeVoid();
    if (!this.#touched || this.#header === undefined) return;
    this.#touched = false;
    for (const source of this.#sources) source.takeChanges(this.#add);
    if (this.#encoder.isEmpty) return;
    const batch = this.#encoder.finish(this.#nextNumber(), false);
    if (this.#failed) return;
    this.#attempt(() => {
      if (this.#length + batch.length > MAX_BYTES) throw this.#full();
      this.#append(batch);
    });
    if (this.#length < LARGE_BYTES || this.#asked) return;
    this.#asked = true;
    this.onLarge?.();
  }

  /** The image has caught up, apart from what the sources say now: everything before does not count any more. */
  checkpoint(): void {
    const header = this.#header;
    if (header === undefined) return;
    this.#asked = false;
    this.#touched = false;
    for (const source of this.#sources) source.allUnsaved(this.#add);
    const batch = this.#encoder.isEmpty ? undefined : this.#encoder.finish(this.#nextNumber(), true);
    this.#attempt(() => {
      if (this.#failed || (batch !== undefined && this.#length > COMFORTABLE_BYTES)) this.#restart(header, batch);
      else if (batch !== undefined) this.#append(batch);
      else if (this.#length > JOURNAL_HEADER_BYTES) this.#shorten();
      this.#failed = false;
    });
  }

  /** The image says that it needs no journal any more. */
  end(): void {
    if (this.#header === undefined) return;
    this.#header = undefined;
    this.#place.remove();
  }

  /** Drops what an earlier session left. */
  discard(): void {
    this.#place.remove();
  }

  #append(batch: Uint8Array): void {
    this.#place.append(batch);
    this.#length += batch.length;
  }

  #shorten(): void {
    this.#place.truncate(JOURNAL_HEADER_BYTES);
    this.#length = JOURNAL_HEADER_BYTES;
  }

  #restart(header: Uint8Array, batch: Uint8Array | undefined): void {
    const bytes = new Uint8Array(header.length + (batch?.length ?? 0));
    bytes.set(header);
    if (batch !== undefined) bytes.set(batch, header.length);
    this.#place.replace(bytes);
    this.#length = bytes.length;
  }

  /** A journal that lacks a change is worse than none: its older records would be put over what came later. */
  #attempt(step: () => void): void {
    try {
      step();
    } catch (error) {
      const isNew = !this.#failed;
      this.#failed = true;
      if (isNew) this.onFailure?.(error);
      this.#makeVoid();
    }
  }

  #makeVoid(): void {
    this.#stale = true;
    this.#place.remove();
    this.#stale = false;
  }

  #nextNumber(): number {
    this.#number = (this.#number + 1) >>> 0;
    return this.#number;
  }

  #full(): ZcowError {
    return new ZcowError(
      "FILE_TOO_LARGE",
      `${this.name} has grown to ${this.#length} bytes without a successful flush of the image`,
      {
        data: { path: this.name, value: this.#length, limit: MAX_BYTES },
      },
    );
  }
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}
