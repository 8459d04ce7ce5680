import { ZcowError } from "../../base/errors.js";
import { ClusterMap } from "./cluster-map.js";
import type { Qcow2Geometry } from "./geometry.js";
import { clusterAt, clustersTouched } from "./positions.js";

/** Structures the engine knows, with the names that stock tools print for them. */
const METADATA_NAMES = {
  1: "qcow2_header",
  2: "active L1 table",
  3: "active L2 table",
  4: "refcount table",
  5: "refcount block",
  6: "snapshot table",
  7: "inactive L1 table",
} as const;

export const OWNER_HEADER = 1;
export const OWNER_L1 = 2;
export const OWNER_L2 = 3;
export const OWNER_REFTABLE = 4;
export const OWNER_REFBLOCK = 5;
export const OWNER_SNAPSHOT_TABLE = 6;
export const OWNER_INACTIVE_L1 = 7;
/** Structures named by `protect` get numbers from here up. */
const FIRST_PROTECTED = 16;
const LAST_PROTECTED = 255;

interface Protected {
  readonly name: string;
  readonly offset: number;
  readonly length: number;
}

/**
 * Which host clusters hold metadata. Asked before every write and every allocation, because a wrong refcount or a
 * wild mapping must not cost a table: a write is let through only to clusters that nobody, or its own structure, owns.
 */
export class MetadataOwners {
  readonly #geometry: Qcow2Geometry;
  readonly #owners = new ClusterMap();
  readonly #protected = new Map<number, Protected>();
  #conflict: ZcowError | undefined;

  constructor(geometry: Qcow2Geometry) {
    this.#geometry = geometry;
  }

  /** The owner number of a host cluster, 0 = none. */
  ownerOf(cluster: number): number {
    return this.#owners.get(cluster);
  }

  nameOf(owner: number): string {
    const known = METADATA_NAMES[owner as keyof typeof METADATA_NAMES] as string | undefined;
    return known ?? this.#protected.get(owner)?.name ?? `structure ${owner}`;
  }

  /** The first time that two structures claimed one cluster. */
  get conflict(): ZcowError | undefined {
    return this.#conflict;
  }

  claim(owner: number, offset: number, length: number): void {
    if (length === 0) return;
    const { first, count } = clustersTouched(offset, length, this.#geometry);
    for (let i = 0; i < count; i++) {
      const other = this.#owners.get(first + i);
      if (other !== 0) this.#conflict ??= this.#shared(owner, other, first + i);
      this.#owners.set(first + i, owner);
    }
  }

  /** Forgets the clusters of a range that `owner` holds. */
  release(owner: number, offset: number, length: number): void {
    if (length === 0) return;
    const { first, count } = clustersTouched(offset, length, this.#geometry);
    for (let i = 0; i < count; i++) {
      if (this.#owners.get(first + i) === owner) this.#owners.delete(first + i);
    }
  }

  protect(name: string, offset: number, length: number): void {
    this.unprotect(name);
    let owner = FIRST_PROTECTED;
    while (this.#protected.has(owner)) owner += 1;
    if (owner > LAST_PROTECTED) {
      throw new ZcowError("INVALID_ARGUMENT", `More than ${LAST_PROTECTED - FIRST_PROTECTED + 1} protected structures`);
    }
    this.#protected.set(owner, { name, offset, length });
    this.claim(owner, offset, length);
  }

  unprotect(name: string): void {
    for (const [owner, structure] of this.#protected) {
      if (structure.name !== name) continue;
      this.release(owner, structure.offset, structure.length);
      this.#protected.delete(owner);
    }
  }

  /** The error of a write of `what` to [offset, offset + length), undefined when every cluster is free or owned by `owner`. */
  violation(what: string, offset: number, length: number, owner = 0): ZcowError | undefined {
    const first = clusterAt(offset, this.#geometry);
    const last = clusterAt(offset + length - 1, this.#geometry);
    for (let cluster: number = first; cluster <= last; cluster++) {
      const found = this.#owners.get(cluster);
      if (found !== 0 && found !== owner) return this.#overlap(what, offset, length, found);
    }
    return undefined;
  }

  #shared(owner: number, other: number, cluster: number): ZcowError {
    const offset = cluster * this.#geometry.clusterSize;
    return new ZcowError(
      "IMAGE_CORRUPT",
      `The cluster at file offset ${offset} is used twice: by the ${this.nameOf(other)} and by the ${this.nameOf(owner)}`,
      {
        data: { structure: this.nameOf(other), field: this.nameOf(owner), offset },
        stockText: `Preventing invalid write on metadata (overlaps with ${this.nameOf(other)})`,
      },
    );
  }

  #overlap(what: string, offset: number, length: number, found: number): ZcowError {
    const name = this.nameOf(found);
    return new ZcowError(
      "IMAGE_CORRUPT",
      `A write of ${what}, ${length} bytes at file offset ${offset}, would overwrite the ${name}`,
      {
        data: { structure: name, field: what, offset, length },
        stockText: `Preventing invalid write on metadata (overlaps with ${name})`,
      },
    );
  }
}
