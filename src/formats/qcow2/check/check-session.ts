import { ZcowError } from "../../../base/errors.js";
import { alignUp } from "../../../base/integers.js";
import { isPromise } from "../../../base/maybe-promise.js";
import { SECTOR_SIZE } from "../../../base/units.js";
import type { Storage } from "../../../storage/storage.js";
import { INCOMPATIBLE } from "../features.js";
import { type Qcow2Geometry, qcow2Geometry } from "../geometry.js";
import type { Qcow2Header } from "../header.js";
import {
  COUNTS_BASE_BYTES,
  MAX_FILE_CLUSTERS,
  MAX_KEPT_FINDING_TEXT,
  MAX_KEPT_FINDINGS,
  MAX_TOLD_FINDINGS,
  TABLE_READ_BASE_BYTES,
  TABLE_READ_FACTOR,
} from "./check-limits.js";
import type { CheckProgress } from "./check-progress.js";
import type { CheckFinding, CheckResult } from "./check-result.js";
import { ReferenceCounts } from "./reference-counts.js";
import type { SnapshotRoot } from "./snapshot-references.js";
import { TableVisits } from "./table-visits.js";

/** Ends a check early, in a way the stock tool has words for. Not an error of the program: becomes `failure`. */
export class CheckStopped extends Error {
  /** What follows "Check failed: ". */
  readonly reason: string;
  constructor(reason: string) {
    super(reason);
    this.reason = reason;
  }
}

export type RepairMode = "leaks" | "all" | undefined;

/** Totals while they are being counted. */
interface Tally {
  corruptions: number;
  leaks: number;
  checkErrors: number;
  corruptionsFixed: number;
  leaksFixed: number;
  allocatedClusters: number;
  fragmentedClusters: number;
  compressedClusters: number;
  imageEndOffset: number;
}

function emptyTally(): Tally {
  return {
    corruptions: 0,
    leaks: 0,
    checkErrors: 0,
    corruptionsFixed: 0,
    leaksFixed: 0,
    allocatedClusters: 0,
    fragmentedClusters: 0,
    compressedClusters: 0,
    imageEndOffset: 0,
  };
}

/** Keeps and hands out findings, within bounds, over all passes of a check and its repair. */
export class FindingLog {
  readonly kept: CheckFinding[] = [];
  readonly #tell: ((finding: CheckFinding) => void) | undefined;
  #seen = 0;
  #text = 0;

  constructor(tell: ((finding: CheckFinding) => void) | undefined) {
    this.#tell = tell;
  }

  get dropped(): number {
    return this.#seen - this.kept.length;
  }

  /** `make` is called only while somebody still listens. */
  add(make: () => CheckFinding): void {
    this.#seen++;
    const told = this.#tell !== undefined && this.#seen <= MAX_TOLD_FINDINGS;
    if (!told && this.#isFull) return;
    const finding = make();
    if (!this.#isFull) this.kept.push(finding);
    this.#text += finding.message.length;
    if (told) this.#tell?.(finding);
  }

  get #isFull(): boolean {
    return this.kept.length >= MAX_KEPT_FINDINGS || this.#text >= MAX_KEPT_FINDING_TEXT;
  }
}

/** One walk over the metadata of one image: what every pass needs, and what it adds up. */
export class CheckSession {
  readonly storage: Storage;
  /** As it is on disk now; a repair changes it. */
  header: Qcow2Header;
  readonly geometry: Qcow2Geometry;
  /** Mending allowed in this walk. */
  readonly fix: RepairMode;
  readonly log: FindingLog;
  readonly tally: Tally = emptyTally();
  /** Where somebody wants to know how far the walk is. */
  progress: CheckProgress | undefined;
  readonly hasDataFile: boolean;
  readonly extendedL2: boolean;
  /** Length of the file in bytes, rounded up to whole sectors. */
  fileLength: number;
  /** Clusters in the file, a last partial one included. */
  fileClusters: number;
  /** References found; after the comparison, the stored counts of all referenced clusters. */
  counts: ReferenceCounts;
  visits = new TableVisits();
  /** The refcount structures are beyond mending in place. */
  needsRebuild = false;
  /** Some stored counts could not be read at all, so flags cannot be judged by them. */
  blocksUnreadable = false;
  /** Copied flags may be wrong somewhere and have to be looked at one by one. */
  flagsUncertain = false;
  /** Why clusters that look leaked must not be freed: some table that may refer to them could not be read. */
  unreadReferences: string | undefined;
  /** What the storage failed with, as the stock tool words it. */
  storageFailure: string | undefined;
  /** Corruptions among the totals that concern the zones alone. */
  zoneFaults = 0;
  /** The write-pointer table lies in clusters that something else uses too. */
  zoneTableShared = false;
  /** Size of the snapshot table in bytes, once read. */
  snapshotTableLength = 0;
  /** L1 tables of the snapshots, once read. */
  snapshotRoots: readonly SnapshotRoot[] = [];
  /** Entries of L1 or L2 tables, or the places of tables, are wrong: counts cannot be right before they are. */
  mappingDamaged = false;
  readonly #tableByteLimit: number;
  #tableBytes = 0;

  /** `spareClusters`: countable clusters after the file's end; one at least, for a region that ends in it. */
  constructor(storage: Storage, header: Qcow2Header, fix: RepairMode, log: FindingLog, spareClusters = 1) {
    this.storage = storage;
    this.header = header;
    this.fix = fix;
    this.log = log;
    const incompatible = header.features.incompatible;
    this.hasDataFile = (incompatible & INCOMPATIBLE.externalData) !== 0n;
    this.extendedL2 = (incompatible & INCOMPATIBLE.extendedL2) !== 0n;
    this.geometry = qcow2Geometry({ ...header, extendedL2: this.extendedL2 });
    const size = storage.size();
    this.fileLength = alignUp(size, SECTOR_SIZE);
    this.fileClusters = Math.ceil(this.fileLength / this.geometry.clusterSize);
    const countable = Math.min(this.fileClusters, MAX_FILE_CLUSTERS) + spareClusters;
    const stored = storage.allocatedSize() ?? size;
    const memory = COUNTS_BASE_BYTES + stored;
    this.#tableByteLimit = TABLE_READ_BASE_BYTES + TABLE_READ_FACTOR * stored;
    this.counts = new ReferenceCounts(countable, this.geometry.maxRefcount, memory);
  }

  /** Clusters whose counts are compared: those of the file, and the one after it when something reaches into it. */
  get comparedClusters(): number {
    return this.counts.get(this.fileClusters) > 0 ? this.fileClusters + 1 : this.fileClusters;
  }

  get totalClusters(): number {
    return Math.ceil(alignUp(this.header.size, SECTOR_SIZE) / this.geometry.clusterSize);
  }

  /** Accounts for one more table to be read. Throws `CHECK_LIMIT` when it is more than a sound image can hold. */
  spendTableBytes(): void {
    this.#tableBytes += this.geometry.clusterSize;
    if (this.#tableBytes <= this.#tableByteLimit) return;
    throw new ZcowError(
      "CHECK_LIMIT",
      `The image refers to more than ${this.#tableByteLimit} bytes of L2 tables, far more than its file has on disk`,
      { data: { structure: "L1 table", value: this.#tableBytes, limit: this.#tableByteLimit } },
    );
  }

  /** Adds `times` findings to the totals and one line to the log, with code and data of the fault where one is made. */
  report(
    finding: Omit<CheckFinding, "message" | "repaired"> & { repaired?: boolean },
    message: (fault: ZcowError | undefined) => string,
    times = 1,
    makeFault?: () => ZcowError,
  ): void {
    if (finding.severity === "corruption") this.tally.corruptions += times;
    if (finding.severity === "leak") this.tally.leaks += times;
    if (finding.severity === "error") this.tally.checkErrors += times;
    this.log.add(() => {
      const fault = makeFault?.();
      const facts = fault && { code: fault.code, data: fault.data };
      return { repaired: false, ...finding, ...facts, message: message(fault) };
    });
  }

  /** Reads; a failing storage ends the check with an error finding that names the stage. */
  read(at: number, into: Uint8Array, stage: string): void | Promise<void> {
    const wait = this.storage.read(at, into);
    return isPromise(wait) ? wait.catch((cause: unknown) => this.#failed(at, cause, stage)) : undefined;
  }

  #failed(at: number, cause: unknown, stage: string): never {
    this.report(
      { kind: "io-error", severity: "error", structure: stage, offset: at },
      () => `ERROR: I/O error in ${stage}`,
    );
    throw Object.assign(new CheckStopped("Input/output error"), { cause });
  }

  /** After a rebuild: goes on with the counts of `rebuilt`, a complete check of the image as it is now. */
  continueAs(rebuilt: CheckSession): void {
    const { tally } = this;
    tally.corruptionsFixed += Math.max(0, tally.corruptions - rebuilt.tally.corruptions);
    tally.leaksFixed += Math.max(0, tally.leaks - rebuilt.tally.leaks);
    tally.corruptions = rebuilt.tally.corruptions;
    tally.leaks = rebuilt.tally.leaks;
    tally.checkErrors = rebuilt.tally.checkErrors;
    tally.imageEndOffset = rebuilt.tally.imageEndOffset;
    this.header = rebuilt.header;
    this.fileLength = rebuilt.fileLength;
    this.fileClusters = rebuilt.fileClusters;
    this.counts = rebuilt.counts;
    this.visits = rebuilt.visits;
    this.needsRebuild = rebuilt.needsRebuild;
    this.flagsUncertain = rebuilt.flagsUncertain;
    this.blocksUnreadable = rebuilt.blocksUnreadable;
  }

  result(failure: string | undefined): CheckResult {
    const { tally, log } = this;
    return {
      ...tally,
      totalClusters: this.totalClusters,
      failure,
      findings: log.kept,
      findingsDropped: log.dropped,
    };
  }
}
