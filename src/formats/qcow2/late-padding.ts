import { isPromise, type MaybePromise } from "../../base/maybe-promise.js";
import { KiB, MiB } from "../../base/units.js";
import type { AddRecord, ChangeJournal, ChangeSource } from "../../storage/change-journal.js";
import type { Qcow2Geometry } from "./geometry.js";
import type { GuestData } from "./guest-data.js";
import { encodeTail, JOURNAL_STAGE, TAIL_BYTES } from "./journal-stages.js";

const ZEROS = new Uint8Array(64 * KiB);

/** Clusters that have tails hold at most this together: a write-back pads them all at once, some 5 ms. */
const MOST_BYTES = 16 * MiB;

/** A cluster of which only the start is written; behind that may be what it held before. */
interface Tail {
  /** Where the cluster is in the file. */
  readonly host: number;
  /** Bytes that are written, from its start on. */
  end: number;
}

/**
 * Reserved clusters that zones are written into again: the first write to one need not pad it with zeros, for most are full before
 * anybody but this program can see them (docs/format.md, "Kept clusters and their tails").
 *
 * Invariants:
 *  - A cluster has a tail from the change of its entry to data until it is full, padded, or its entry changes again. So bytes of its
 *    former life are behind what is written in the clusters that have a tail, and nowhere else.
 *  - A write-back pads all tails in the turn in which it takes the entries, before its first barrier: no entry gets into the
 *    file before the zeros that belong to it are durable.
 *  - The journal has every tail whose cluster is mapped in the journal and not in the file.
 *  - A tail ends where writes that are under way end. (There are tails only where each write is over when its call returns.)
 */
export class LatePadding implements ChangeSource {
  readonly #data: GuestData;
  readonly #clusterSize: number;
  readonly #isPossible: boolean;
  readonly #tails = new Map<number, Tail>();
  /** Clusters that got a tail which the journal has not got yet. */
  #fresh: number[] = [];
  readonly #hasJournal: boolean;
  readonly #mostTails: number;
  readonly #record = new Uint8Array(TAIL_BYTES);
  /** From this guest offset on. */
  #from = Number.POSITIVE_INFINITY;

  constructor(data: GuestData, geometry: Qcow2Geometry, journal: ChangeJournal | undefined) {
    this.#data = data;
    this.#clusterSize = geometry.clusterSize;
    this.#isPossible =
      geometry.subclusters === 1 && data.inImage && data.direct !== undefined && data.storage.capabilities.synchronous;
    this.#mostTails = Math.max(1, MOST_BYTES / geometry.clusterSize);
    this.#hasJournal = journal !== undefined;
    journal?.register(this);
  }

  /** From guest offset `from` on, whoever writes shows nobody what is behind the end of what is written. */
  allow(from: number): void {
    if (this.#isPossible) this.#from = from;
  }

  /** A write at guest `offset`, which is the start of a cluster, may leave the end of its last cluster as it is. */
  isAllowed(offset: number): boolean {
    return offset >= this.#from && this.#tails.size < this.#mostTails;
  }

  get isEmpty(): boolean {
    return this.#tails.size === 0;
  }

  /** `cluster` was just mapped to `host`, and its first `end` bytes are written. */
  begin(cluster: number, host: number, end: number): void {
    this.#tails.set(cluster, { host, end });
    if (this.#hasJournal) this.#fresh.push(cluster);
  }

  /** The entry of `cluster` has changed: what it says now has nothing to do with the tail. */
  drop(cluster: number): void {
    this.#tails.delete(cluster);
  }

  /**
   * Guest bytes [offset, offset + length) are written, in this turn, to clusters that are mapped. A gap before them, which a failed
   * write left, is filled; rejects when that fails, and then the bytes count as not written.
   */
  wrote(offset: number, length: number): MaybePromise<void> {
    const size = this.#clusterSize;
    const end = offset + length;
    for (let cluster = Math.floor(offset / size); cluster * size < end; cluster++) {
      const tail = this.#tails.get(cluster);
      if (tail === undefined) continue;
      const start = cluster * size;
      if (offset - start > tail.end) {
        const wait = this.#fill(cluster, tail, offset - start);
        if (wait !== undefined) return wait;
      }
      tail.end = Math.max(tail.end, Math.min(end - start, size));
      if (tail.end === size) this.#tails.delete(cluster);
    }
    return undefined;
  }

  /** The same bytes, which belong at `host`, were not written, or only in part: nobody will ask for what is there or behind. */
  failed(offset: number, length: number, host: number): void {
    if (offset < this.#from) return;
    const size = this.#clusterSize;
    for (let cluster = Math.floor(offset / size); cluster * size < offset + length; cluster++) {
      const start = cluster * size;
      const end = Math.max(0, offset - start);
      const tail = this.#tails.get(cluster);
      if (tail === undefined) this.begin(cluster, host + start - offset, end);
      else tail.end = Math.min(tail.end, end);
    }
  }

  /** Makes all tails zeros, in this turn; rejects when it could not, and those that are left stay. */
  padAll(): MaybePromise<void> {
    for (const [cluster, tail] of this.#tails) {
      const wait = this.#fill(cluster, tail, this.#clusterSize);
      if (wait !== undefined) return wait;
      this.#tails.delete(cluster);
    }
    return undefined;
  }

  takeChanges(add: AddRecord): void {
    for (const cluster of this.#fresh) this.#add(cluster, add);
    this.#fresh = [];
  }

  allUnsaved(add: AddRecord): void {
    for (const cluster of this.#tails.keys()) this.#add(cluster, add);
    this.#fresh = [];
  }

  #add(cluster: number, add: AddRecord): void {
    const tail = this.#tails.get(cluster);
    if (tail !== undefined) add(JOURNAL_STAGE.tails, tail.host, encodeTail(cluster * this.#clusterSize, this.#record));
  }

  /** Zeros from the end of what is written to byte `to` of the cluster. */
  #fill(cluster: number, tail: Tail, to: number): MaybePromise<void> {
    for (let at = tail.end; at < to; ) {
      const part = ZEROS.subarray(0, Math.min(ZEROS.length, to - at));
      const wait = this.#data.write(tail.host + at, cluster * this.#clusterSize + at, part);
      if (isPromise(wait)) return wait;
      at += part.length;
    }
    tail.end = to;
    return undefined;
  }
}
