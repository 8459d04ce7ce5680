import { ZcowError } from "../../../base/errors.js";
import { alignDown, alignUp } from "../../../base/integers.js";
import { SECTOR_SIZE } from "../../../base/units.js";
import type { CheckSession } from "../check/check-session.js";
import type { FreeClusters } from "./free-clusters.js";
import type { ClusterKind, ReferenceVisitor } from "./reference-walk.js";

/** A cluster on its way. */
export interface ClusterMove {
  readonly kind: ClusterKind | "region";
  readonly to: number;
  /** References found, each of which is to be changed. */
  references: number;
}

/** The data of a compressed cluster on their way, in bytes. `to` is -1 until there is a place. */
export interface ExtentMove {
  length: number;
  to: number;
  references: number;
}

/** What one step moves, by cluster number and by byte offset. */
export class Moves {
  readonly clusters = new Map<number, ClusterMove>();
  readonly extents = new Map<number, ExtentMove>();
  readonly #session: CheckSession;
  readonly #clusterSize: number;

  constructor(session: CheckSession) {
    this.#session = session;
    this.#clusterSize = session.geometry.clusterSize;
  }

  get isEmpty(): boolean {
    return this.clusters.size === 0 && this.extents.size === 0;
  }

  /** What is counted at the new places, by cluster. */
  gains(): Map<number, number> {
    const gains = new Map<number, number>();
    for (const { to, references } of this.clusters.values()) gains.set(to, references);
    for (const { to, length, references } of this.extents.values()) this.#count(gains, to, length, references);
    return gains;
  }

  /** What is no longer counted at the old places, by cluster, as negative numbers. */
  losses(): Map<number, number> {
    const losses = new Map<number, number>();
    for (const [from, { references }] of this.clusters) losses.set(from, -references);
    for (const [from, { length, references }] of this.extents) this.#count(losses, from, length, -references);
    return losses;
  }

  #count(sums: Map<number, number>, offset: number, length: number, references: number): void {
    const last = Math.floor((offset + length - 1) / this.#clusterSize);
    for (let cluster = Math.floor(offset / this.#clusterSize); cluster <= last; cluster++) {
      sums.set(cluster, (sums.get(cluster) ?? 0) + references);
    }
  }

  /** A cluster moves only if every use of it is known; one that is used for two kinds of things is damage that no check sees. */
  requireComplete(): void {
    for (const [from, { references }] of this.clusters) {
      const counted = this.#session.counts.get(from);
      if (references !== counted) throw unclear(this.#session, from, references, counted);
    }
  }

  /** Finds room for compressed data, packed as they are packed now. What finds none does not move. */
  placeExtents(free: FreeClusters): void {
    const packing = new Packing(free, this.#clusterSize, this.#session.geometry.maxRefcount);
    const ascending = [...this.extents].toSorted(([a], [b]) => a - b);
    for (const [offset, extent] of ascending) {
      if (!packing.place(offset, extent)) this.extents.delete(offset);
    }
  }
}

/** Fills free clusters with compressed data. */
class Packing {
  readonly #free: FreeClusters;
  readonly #clusterSize: number;
  readonly #maxRefcount: number;
  readonly #counts = new Map<number, number>();
  /** The free bytes at hand: [at, end). */
  #at = 0;
  #end = 0;
  /** How far the latest data moved, and where they ended before. */
  #distance = 0;
  #previousEnd = -1;

  constructor(free: FreeClusters, clusterSize: number, maxRefcount: number) {
    this.#free = free;
    this.#clusterSize = clusterSize;
    this.#maxRefcount = maxRefcount;
  }

  place(offset: number, extent: ExtentMove): boolean {
    // Data that begin in the sector in which others end stay beside them; else they begin in a sector of their own.
    const isChained = alignDown(offset, SECTOR_SIZE) <= this.#previousEnd && this.#end > 0;
    const to = isChained ? offset - this.#distance : alignUp(this.#at, SECTOR_SIZE) + (offset % SECTOR_SIZE);
    if (this.#end > 0 && this.#fits(to, extent)) return this.#put(offset, to, extent);
    for (let first = this.#free.take(); first !== undefined; first = this.#free.take()) {
      this.#at = first * this.#clusterSize;
      this.#end = this.#at + this.#clusterSize;
      const fresh = this.#at + (offset % SECTOR_SIZE);
      if (this.#fits(fresh, extent)) return this.#put(offset, fresh, extent);
    }
    this.#end = 0;
    return false;
  }

  #fits(to: number, { length, references }: ExtentMove): boolean {
    while (to + length > this.#end) {
      if (!this.#free.takeIfNext(this.#end / this.#clusterSize)) return false;
      this.#end += this.#clusterSize;
    }
    return this.#clustersOf(to, length).every(
      (cluster) => (this.#counts.get(cluster) ?? 0) + references <= this.#maxRefcount,
    );
  }

  #put(offset: number, to: number, extent: ExtentMove): true {
    extent.to = to;
    for (const cluster of this.#clustersOf(to, extent.length)) {
      this.#counts.set(cluster, (this.#counts.get(cluster) ?? 0) + extent.references);
    }
    this.#distance = offset - to;
    this.#at = Math.max(this.#at, to + extent.length);
    this.#previousEnd = Math.max(offset + extent.length, alignDown(offset, SECTOR_SIZE));
    return true;
  }

  #clustersOf(offset: number, length: number): number[] {
    const first = Math.floor(offset / this.#clusterSize);
    const last = Math.floor((offset + length - 1) / this.#clusterSize);
    return Array.from({ length: last - first + 1 }, (_, index) => first + index);
  }
}

/** Moves of one step, bounded: about 30 MiB of memory. */
const MOST_MOVES = 2 ** 17;

/** Picks what lies at or behind the cluster `cut`, as much as one step takes. */
export class TailCollector implements ReferenceVisitor {
  readonly #moves: Moves;
  readonly #free: FreeClusters;
  readonly #cut: number;
  readonly #clusterSize: number;

  constructor(session: CheckSession, moves: Moves, free: FreeClusters, cut: number) {
    this.#moves = moves;
    this.#free = free;
    this.#cut = cut;
    this.#clusterSize = session.geometry.clusterSize;
  }

  region(_name: string, offset: number): number {
    return offset;
  }

  cluster(kind: ClusterKind, offset: number, times: number): number {
    const from = offset / this.#clusterSize;
    if (from < this.#cut) return offset;
    const { clusters } = this.#moves;
    const known = clusters.get(from);
    if (known !== undefined) {
      known.references += times;
      return offset;
    }
    const to = clusters.size < MOST_MOVES ? this.#free.take() : undefined;
    if (to !== undefined) clusters.set(from, { kind, to, references: times });
    return offset;
  }

  compressed(offset: number, length: number, times: number): number {
    if (Math.floor((offset + length - 1) / this.#clusterSize) < this.#cut) return offset;
    const { extents } = this.#moves;
    const known = extents.get(offset);
    if (known !== undefined) {
      known.references += times;
      known.length = Math.max(known.length, length);
    } else if (extents.size < MOST_MOVES) {
      extents.set(offset, { length, to: -1, references: times });
    }
    return offset;
  }
}

/** Leads every reference to where its target has moved, and makes sure that none was missed. */
export class MoveApplier implements ReferenceVisitor {
  readonly #session: CheckSession;
  readonly #moves: Moves;
  readonly #changed = new Map<number, number>();
  readonly #changedExtents = new Map<number, number>();

  constructor(session: CheckSession, moves: Moves) {
    this.#session = session;
    this.#moves = moves;
  }

  region(_name: string, offset: number, length: number): number {
    const { clusterSize } = this.#session.geometry;
    const first = offset / clusterSize;
    for (let cluster = first; cluster * clusterSize < offset + length; cluster++) {
      if (this.#moves.clusters.has(cluster)) this.#add(this.#changed, cluster, 1);
    }
    const move = this.#moves.clusters.get(first);
    return move === undefined ? offset : move.to * clusterSize;
  }

  cluster(_kind: ClusterKind, offset: number, times: number): number {
    const { clusterSize } = this.#session.geometry;
    const move = this.#moves.clusters.get(offset / clusterSize);
    if (move === undefined) return offset;
    this.#add(this.#changed, offset / clusterSize, times);
    return move.to * clusterSize;
  }

  compressed(offset: number, _length: number, times: number): number {
    const move = this.#moves.extents.get(offset);
    if (move === undefined) return offset;
    this.#add(this.#changedExtents, offset, times);
    return move.to;
  }

  /** Throws `IMAGE_CORRUPT` before any old place is given up. */
  requireAll(): void {
    const { clusterSize } = this.#session.geometry;
    for (const [from, { references }] of this.#moves.clusters) {
      const changed = this.#changed.get(from) ?? 0;
      if (changed !== references) throw unclear(this.#session, from, changed, references);
    }
    for (const [from, { references }] of this.#moves.extents) {
      const changed = this.#changedExtents.get(from) ?? 0;
      if (changed !== references) throw unclear(this.#session, Math.floor(from / clusterSize), changed, references);
    }
  }

  #add(sums: Map<number, number>, key: number, times: number): void {
    sums.set(key, (sums.get(key) ?? 0) + times);
  }
}

function unclear(session: CheckSession, cluster: number, found: number, counted: number): ZcowError {
  const offset = cluster * session.geometry.clusterSize;
  return new ZcowError(
    "IMAGE_CORRUPT",
    `The cluster at file offset ${offset} has ${counted} references, of which ${found} are of one kind: two structures use it`,
    { data: { structure: "cluster", offset, value: found, limit: counted, path: session.storage.name } },
  );
}
