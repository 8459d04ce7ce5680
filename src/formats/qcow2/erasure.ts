import type { ImageState } from "./image-state.js";
import { isMapped, type MappingRun } from "./mapping.js";

/**
 * What an erasure makes of guest clusters, and with extended entries of subclusters.
 *
 * `discard-hint`: what the stock tool does with a guest's discard. Version 3: data and preallocated clusters
 * become plain zero clusters, the rest stays; version 2: the mapping goes away.
 * `forget`: the mapping goes away in any version; over a backing file it leaves zero clusters instead.
 * `reserve`: as `forget`, but host clusters that nobody shares stay reserved for what is written there next, and read as zeros.
 * `zero-keep`, `zero-unmap`: version 3 zero flags, host clusters kept in place or given back.
 * `rezero-keep`, `rezero-unmap`: the same, but only for clusters that read as zeros already.
 */
export type Erasure =
  | "discard-hint"
  | "forget"
  | "reserve"
  | "zero-keep"
  | "zero-unmap"
  | "rezero-keep"
  | "rezero-unmap";

/** A change of one or more L2 entries, to be made in the bytes of their slice. */
export type EntryChange = (view: DataView) => void;

/** An erasure that reserves leaves the run its host clusters. */
export function staysReserved(state: ImageState, run: MappingRun): boolean {
  return isMapped(run) && run.copied && state.data.inImage;
}

/** What is not mapped does not read as zeros everywhere. */
export function hidesBacking(state: ImageState): boolean {
  return state.old.backing !== undefined;
}
