import type { ImplicitFileRole } from "../../block/open-policy.js";

/**
 * How much a finding matters to whoever is to open the image.
 *
 * - "danger": opening it as it is fails, or reaches what its author chose outside of its folder.
 * - "decision": somebody must decide first: it names other files, is larger than allowed, needs a key, has damage.
 * - "note": worth knowing.
 */
export type InspectLevel = "danger" | "decision" | "note";

/** One thing to know of an image. */
export interface InspectFinding {
  readonly level: InspectLevel;
  /** Stable name of the kind of finding. */
  readonly code: string;
  readonly message: string;
}

/**
 * Where a reference leads: "beside" the image or below its folder, "outside" of that folder (absolute, or with `..`), or by a
 * "protocol" (`nbd://...`, `json:{...}`): to another host, or to whatever driver its author chose.
 */
export type ReferenceReach = "beside" | "outside" | "protocol";

/** Another file that the image names. */
export interface ImageReference {
  readonly role: ImplicitFileRole | "parent";
  /** As the image has it. */
  readonly name: string;
  /** Format that the image records for it. */
  readonly format: string | undefined;
  readonly reach: ReferenceReach;
}

/** What the image would take. Bytes. */
export interface InspectResources {
  /** Tables that are read whole when the image is opened: L1, refcount table, snapshot table, bitmap directory. */
  readonly tablesInMemory: number | undefined;
  /** Mapping tables and reference counts once every cluster is written. */
  readonly tablesWhenFull: number | undefined;
  /** Its size as a raw image. */
  readonly whenExpanded: number | undefined;
}

/** What is to be known of an image before it is trusted. Sizes in bytes; undefined where it could not be told. */
export interface InspectReport {
  readonly filename: string;
  /** By content. */
  readonly format: string;
  /** What else the file looks like: file systems, partition tables, archives. */
  readonly marks: readonly string[];
  readonly fileSize: number;
  readonly actualSize: number | undefined;
  readonly virtualSize: number | undefined;
  readonly references: readonly ImageReference[];
  readonly resources: InspectResources;
  /** Most serious first. */
  readonly findings: readonly InspectFinding[];
  /** The most serious level among the findings; notes do not count. */
  readonly verdict: "danger" | "decision" | "none";
}

/** Collects findings. */
export class Findings {
  readonly #list: InspectFinding[] = [];

  add(level: InspectLevel, code: string, message: string): void {
    this.#list.push({ level, code, message });
  }

  /** Most serious first, otherwise as they came. */
  sorted(): InspectFinding[] {
    const order: Readonly<Record<InspectLevel, number>> = { danger: 0, decision: 1, note: 2 };
    return this.#list.toSorted((one, other) => order[one.level] - order[other.level]);
  }
}
