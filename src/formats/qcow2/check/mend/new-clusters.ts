import { ZcowError } from "../../../../base/errors.js";
import { alignUp, ceilDiv } from "../../../../base/integers.js";
import { MAX_FILE_CLUSTERS, MEND_BASE_BYTES } from "../check-limits.js";
import type { CheckSession } from "../check-session.js";

/**
 * Room for what a repair of structures writes anew, behind the end of the file: free whatever the refcounts say. It is
 * counted when the refcounts are repaired afterwards.
 */
export class NewClusters {
  readonly #clusterSize: number;
  readonly #limit: number;
  #next: number;

  constructor({ storage, geometry }: CheckSession) {
    this.#clusterSize = geometry.clusterSize;
    this.#next = alignUp(storage.size(), geometry.clusterSize);
    this.#limit = Math.min(
      this.#next + Math.max(MEND_BASE_BYTES, storage.allocatedSize() ?? storage.size()),
      MAX_FILE_CLUSTERS * geometry.clusterSize,
    );
  }

  /** Byte offset of room for `length` bytes, in whole clusters. Throws `CHECK_LIMIT` beyond what a repair may add. */
  take(length: number): number {
    const offset = this.#next;
    const end = offset + ceilDiv(length, this.#clusterSize) * this.#clusterSize;
    if (end > this.#limit) {
      throw new ZcowError(
        "CHECK_LIMIT",
        `The repair would make the file ${end} bytes long, more than ${this.#limit}: too many tables or clusters are used twice`,
        { data: { structure: "L1 table", value: end, limit: this.#limit } },
      );
    }
    this.#next = end;
    return offset;
  }
}
