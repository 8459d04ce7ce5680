import type { MaybePromise } from "../../base/maybe-promise.js";
import type { BlockDevice } from "../../block/block-device.js";
import type { StorageDebug } from "../../storage/debug/events.js";
import type { Qcow2Geometry } from "./geometry.js";
import type { GuestData } from "./guest-data.js";
import type { MappingRun } from "./mapping.js";

/** A compressed cluster as the mapping has it. */
export type CompressedRun = Extract<MappingRun, { readonly kind: "compressed" }>;

/** Reads compressed clusters. */
export interface CompressedReader {
  /** Fills `into` with the contents of guest cluster `cluster` from byte `inside` of the cluster on. */
  read(run: CompressedRun, cluster: number, inside: number, into: Uint8Array): MaybePromise<void>;
  /** Drops what is kept of the data at `host`: its cluster lost its mapping. */
  forget(host: number): void;
}

export interface OldContentsParts {
  readonly geometry: Qcow2Geometry;
  readonly data: GuestData;
  readonly compressed: CompressedReader;
  /** What shows through clusters that are not mapped; of any size, zeros past its end. */
  readonly backing: BlockDevice | undefined;
  /** Told of what is read, where faults are injected. */
  readonly debug?: StorageDebug | undefined;
}

/**
 * What guest clusters read as, as the mapping has them: for reading, and for the parts of a cluster that a write leaves as
 * they were (copy on write). The one place that knows where the bytes of each kind of run come from.
 */
export class OldContents {
  readonly backing: BlockDevice | undefined;
  readonly #data: GuestData;
  readonly #compressed: CompressedReader;
  readonly #debug: StorageDebug | undefined;
  readonly #clusterSize: number;
  readonly #subclusterSize: number;

  constructor({ geometry, data, compressed, backing, debug }: OldContentsParts) {
    this.#debug = debug;
    this.backing = backing;
    this.#data = data;
    this.#compressed = compressed;
    this.#clusterSize = geometry.clusterSize;
    this.#subclusterSize = geometry.subclusterSize;
  }

  /**
   * Fills `into` with what the guest reads from byte `inside` of `subcluster` on, where `run` is the mapping from `subcluster` on
   * and covers the bytes asked for.
   */
  read(run: MappingRun, subcluster: number, inside: number, into: Uint8Array): MaybePromise<void> {
    const guest = subcluster * this.#subclusterSize + inside;
    switch (run.kind) {
      case "data":
        return this.#data.read(run.host + inside, guest, into);
      case "compressed": {
        const cluster = Math.floor(guest / this.#clusterSize);
        return this.#compressed.read(run, cluster, guest - cluster * this.#clusterSize, into);
      }
      case "unallocated":
      case "preallocated":
        return this.readUnmapped(guest, into);
      default:
        into.fill(0);
        return undefined;
    }
  }

  /** Fills `into` with what shows where nothing is mapped at guest offset `guest`. */
  readUnmapped(guest: number, into: Uint8Array): MaybePromise<void> {
    const backed = this.backing === undefined ? 0 : Math.min(into.length, Math.max(0, this.backing.size - guest));
    if (backed < into.length) into.fill(0, backed);
    if (backed === 0) return undefined;
    this.#debug?.event("read_backing_aio");
    return this.backing?.read(guest, into.subarray(0, backed));
  }

  /** The mapping alone says that `run`, which starts at guest `subcluster`, reads as zeros. */
  isZero(run: MappingRun, subcluster: number): boolean {
    if (run.kind === "unallocated" || run.kind === "preallocated") {
      return this.unmappedIsZero(subcluster * this.#subclusterSize);
    }
    return run.kind === "zero" || run.kind === "zero-preallocated";
  }

  /** From guest offset `guest` on, what is not mapped reads as zeros. */
  unmappedIsZero(guest: number): boolean {
    return this.backing === undefined || guest >= this.backing.size;
  }
}
