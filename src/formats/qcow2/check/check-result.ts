import type { ErrorCode } from "../../../base/error-codes.js";
import type { ErrorData } from "../../../base/errors.js";

/** What a finding is about. */
export type FindingKind =
  | "leak"
  | "refcount-too-low"
  | "refcount-unreadable"
  | "refcount-overflow"
  | "copied-flag"
  | "l1-entry"
  | "l2-entry"
  | "past-end"
  | "shared-table"
  | "refcount-table"
  | "snapshot-table"
  | "encryption-header"
  | "bitmap"
  | "zone"
  | "io-error"
  | "repair";

/** What a finding adds to the totals: `corruption` can lose data, a `leak` only wastes space, an `error` stopped the check. */
export type FindingSeverity = "corruption" | "leak" | "error" | "note";

/** One line of a check, in the order in which the stock tool finds them. */
export interface CheckFinding {
  readonly kind: FindingKind;
  readonly severity: FindingSeverity;
  /** True when the repair mended it. */
  readonly repaired: boolean;
  /** The structure concerned: "L2 table", "refcount block 3", "zone 7". */
  readonly structure: string;
  /** Byte offset in the file of the cluster or table concerned, where there is one. */
  readonly offset?: number;
  /** For findings about zones: the code with which opening the image is refused for the same fault. */
  readonly code?: ErrorCode;
  /** For findings about zones: the field, the value found and the limit. */
  readonly data?: ErrorData;
  /** The text that `qemu-img check` prints (on stderr) for the same finding; our own for zones. */
  readonly message: string;
}

/** The numbers that `qemu-img check` reports. Clusters are counted in clusters, offsets in bytes. */
export interface CheckResult {
  readonly corruptions: number;
  readonly leaks: number;
  readonly checkErrors: number;
  readonly corruptionsFixed: number;
  readonly leaksFixed: number;
  /** End of the last cluster in use; 0 when the check did not get that far. */
  readonly imageEndOffset: number;
  /** Clusters of the virtual disk. */
  readonly totalClusters: number;
  readonly allocatedClusters: number;
  readonly fragmentedClusters: number;
  readonly compressedClusters: number;
  /**
   * Why the check had to stop, as the stock tool words it after "Check failed: "; the totals are then incomplete.
   * Undefined for a check that ran to its end.
   */
  readonly failure: string | undefined;
  /** The first findings, at most 16384 of them and 4 MiB of text; `onFinding` gets up to 2^20. The totals count all. */
  readonly findings: readonly CheckFinding[];
  /** Findings that are counted but not in `findings`. */
  readonly findingsDropped: number;
}

/** Exit status of `qemu-img check` for this result: 0 clean, 1 the check failed, 2 corruption, 3 leaks only. */
export function checkExitCode(result: CheckResult): 0 | 1 | 2 | 3 {
  if (result.failure !== undefined || result.checkErrors > 0) return 1;
  if (result.corruptions > 0) return 2;
  return result.leaks > 0 ? 3 : 0;
}
