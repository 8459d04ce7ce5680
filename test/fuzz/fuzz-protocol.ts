import type { KeptCase } from "./kinds.js";

/** The lines that the fuzzing process and its watcher exchange. */

/** Peak resident memory of a case, Node itself and the good images included. */
export const MEMORY_LIMIT_MIB = 256;

/** A case that keeps the processor busy for longer is a finding: the images are small. */
export const SLOW_CASE_MS = 5_000;

/** Silence after which the watcher calls a case hung. */
export const HUNG_CASE_MS = 60_000;

export interface ChildOrder {
  readonly seed: number;
  /** The kinds that cases are drawn from. */
  readonly kinds: readonly string[];
  /** Cases from .. to - 1; case n uses seed + n. */
  readonly from: number;
  readonly to: number;
  /** For images of several files. */
  readonly folder: string;
  /** The only case of its process: what it takes is its own. */
  readonly alone: boolean;
}

export interface FuzzFailure {
  readonly index: number;
  readonly kind: string;
  readonly problem: string;
  readonly damages: readonly string[];
  /** The smallest case found that still fails. */
  readonly kept?: KeptCase | undefined;
}

export type ChildReport =
  | { readonly kind: "ready" }
  | { readonly kind: "begin"; readonly index: number }
  | { readonly kind: "failed"; readonly failure: FuzzFailure }
  /** Too much memory, in a process that has run other cases before. */
  | { readonly kind: "heavy"; readonly index: number }
  | { readonly kind: "done"; readonly peakMiB: number };
