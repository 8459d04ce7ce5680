import { writePointerTableBytes } from "../write-pointer-table.js";
import type { CheckSession } from "./check-session.js";
import { NO_BLOCK, type RefcountTable } from "./refcount-structures.js";

/** A run of clusters that belongs to one structure. */
interface Place {
  readonly structure: string;
  readonly first: number;
  readonly last: number;
}

/**
 * Which clusters hold metadata other than L2 tables. Asked before a table is rewritten: when damage makes two
 * structures share a cluster, mending the one would destroy the other.
 */
export class MetadataPlaces {
  readonly #clusterSize: number;
  readonly #places: Place[] = [];
  readonly #blocks = new Set<number>();

  constructor(session: CheckSession, table: RefcountTable) {
    const { header, geometry } = session;
    this.#clusterSize = geometry.clusterSize;
    this.#add("header", 0, 1);
    this.#add("L1 table", header.l1TableOffset, header.l1Size * 8);
    this.#add("refcount table", header.refcountTableOffset, header.refcountTableClusters * geometry.clusterSize);
    this.#add("snapshot table", header.snapshotsOffset, session.snapshotTableLength);
    this.#add("encryption header", header.cryptHeader?.offset ?? 0, header.cryptHeader?.length ?? 0);
    this.#add("bitmap directory", header.bitmaps?.offset ?? 0, header.bitmaps?.length ?? 0);
    const { zoned } = header;
    if (zoned?.tableOffset !== undefined) {
      this.#add("write-pointer table", zoned.tableOffset, writePointerTableBytes(zoned.zoneCount));
    }
    for (let index = 0; index < table.length; index++) {
      const offset = table.blockOffset(index);
      if (offset !== undefined && offset !== NO_BLOCK) this.#blocks.add(offset / geometry.clusterSize);
    }
  }

  /** Name of the structure in `cluster`, other than `except`; undefined when there is none. */
  ownerOf(cluster: number, except?: string): string | undefined {
    const place = this.#places.find(
      ({ structure, first, last }) => structure !== except && cluster >= first && cluster <= last,
    );
    return place?.structure ?? (this.#blocks.has(cluster) ? "refcount block" : undefined);
  }

  #add(structure: string, offset: number, length: number): void {
    if (length === 0) return;
    const first = Math.floor(offset / this.#clusterSize);
    this.#places.push({ structure, first, last: Math.floor((offset + length - 1) / this.#clusterSize) });
  }
}
