/** The lines that the fuzzing process and its watcher exchange. */

/** Peak resident memory of the whole process, Node itself and the good images included. */
export const MEMORY_LIMIT_MIB = 256;

/** A case that takes longer is a finding: the images are small. */
export const SLOW_CASE_MS = 5_000;

/** Silence after which the watcher calls a case hung. */
export const HUNG_CASE_MS = 30_000;

export interface ChildOrder {
  readonly seed: number;
  /** Cases from .. to - 1; case n uses seed + n. */
  readonly from: number;
  readonly to: number;
}

export interface FuzzFailure {
  readonly index: number;
  readonly problem: string;
  readonly damages: readonly string[];
  /** The smallest image found that still fails, base64. */
  readonly image?: string | undefined;
}

export type ChildReport =
  | { readonly kind: "ready"; readonly images: readonly string[] }
  | { readonly kind: "begin"; readonly index: number }
  | ({ readonly kind: "failed" } & FuzzFailure)
  | { readonly kind: "done"; readonly peakMiB: number; readonly lastFailure: number };
