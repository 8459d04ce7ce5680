import { CheckSession, FindingLog } from "../check-session.js";
import { countReferences } from "../image-references.js";
import { fixedPlaces, isShared, type Place } from "../shared-places.js";

/** Widest counts: with those of the image, a cluster used twice could look like one used once. */
const WIDEST_ORDER = 6;
const LUKS = 2;

/** Who uses which cluster, counted without the limits of the image's own refcounts. */
export class SharedClusters {
  readonly #survey: CheckSession;
  readonly #maxRefcount: number;
  readonly #mayMoveData: boolean;
  /** Clusters of structures that stay where they are. */
  readonly #fixed = new Set<number>();
  /** References that were left in place, of clusters that have more than the image can count. */
  readonly #kept = new Map<number, number>();

  private constructor(session: CheckSession, survey: CheckSession) {
    this.#survey = survey;
    this.#maxRefcount = session.geometry.maxRefcount;
    // The sector keys of LUKS follow from where the data are: copied elsewhere, they could not be read.
    this.#mayMoveData = session.header.cryptMethod !== LUKS;
    for (const place of fixedPlaces(survey)) {
      if (place.structure !== "refcount table") this.#addFixed(place);
    }
  }

  static async survey(session: CheckSession): Promise<SharedClusters> {
    const header = { ...session.header, refcountOrder: WIDEST_ORDER };
    const survey = new CheckSession(session.storage, header, undefined, new FindingLog(undefined));
    await countReferences(survey, true);
    return new SharedClusters(session, survey);
  }

  /** L1 entries that refer to the table at `offset`. */
  tableUses(offset: number): number {
    return this.#survey.visits.count(offset / this.#survey.geometry.clusterSize);
  }

  isTableAlone(offset: number): boolean {
    return this.#survey.counts.get(offset / this.#survey.geometry.clusterSize) === this.tableUses(offset);
  }

  isPlaceShared(offset: number, length: number): boolean {
    return length > 0 && isShared(this.#survey, { structure: "", offset, length });
  }

  /** Whether data of an entry, in a table that is used `uses` times, need clusters of their own. If not, they are counted. */
  mustMove(offset: number, length: number, uses: number): boolean {
    if (!this.#mayMoveData) return false;
    const { geometry, counts } = this.#survey;
    const first = Math.floor(offset / geometry.clusterSize);
    const last = Math.min(Math.floor((offset + length - 1) / geometry.clusterSize), counts.clusters - 1);
    for (let cluster = first; cluster <= last; cluster++) {
      const count = counts.get(cluster);
      if (count <= 1) continue;
      if (this.#fixed.has(cluster)) return true;
      if (count > this.#maxRefcount && (this.#kept.get(cluster) ?? 0) + uses > this.#maxRefcount) return true;
    }
    for (let cluster = first; cluster <= last; cluster++) {
      if (counts.get(cluster) > this.#maxRefcount) this.#kept.set(cluster, (this.#kept.get(cluster) ?? 0) + uses);
    }
    return false;
  }

  #addFixed({ offset, length }: Place): void {
    const { clusterSize } = this.#survey.geometry;
    const last = Math.floor((offset + length - 1) / clusterSize);
    for (let cluster = Math.floor(offset / clusterSize); cluster <= last; cluster++) this.#fixed.add(cluster);
  }
}
