import { alignDown } from "../../base/integers.js";
import { type EntryChange, type Erasure, hidesBacking, staysReserved } from "./erasure.js";
import { freeRun } from "./freed-runs.js";
import type { ImageState } from "./image-state.js";
import { isMapped, type MappingRun } from "./mapping.js";
import { setMaps, storedMap, subclusterMask, zeroMap } from "./subclusters.js";
import type { TableSlice } from "./table-cache.js";

/** Both maps of an extended entry, bits as in the entry, and whether its host cluster stays. */
interface Maps {
  readonly zeros: number;
  readonly stored: number;
  readonly hasHost: boolean;
}

/** What an erasure comes down to for one cluster. */
type PlainErasure = Exclude<Erasure, "reserve">;

/** All subclusters of a cluster. */
const WHOLE = -1;
const ALL_ZERO: Maps = { zeros: WHOLE, stored: 0, hasHost: false };

/**
 * What erasing the subclusters [first, first + count) of one slice changes in its extended entries. Whole clusters become what
 * the stock tool makes of them; in a part only the maps change, and the host cluster goes when nothing is stored in it
 * any more. Undefined when a part of a compressed cluster would have to read as zeros.
 */
export function extendedChanges(
  state: ImageState,
  slice: TableSlice,
  first: number,
  count: number,
  erasure: Erasure,
): EntryChange[] | undefined {
  const { map, geometry } = state;
  const { subclusters } = geometry;
  const hasBacking = hidesBacking(state);
  const changes: EntryChange[] = [];
  const end = first + count;
  for (let at = first; at < end; ) {
    const start = alignDown(at, subclusters);
    const past = Math.min(end, start + subclusters);
    const mask = subclusterMask(at - start, past - start);
    const run = map.runAt(slice, start, 1);
    const entry = map.entryAt(start / subclusters);
    at = past;
    const isCompressed = run.kind === "compressed";
    if (isCompressed && mask !== WHOLE) {
      if (erasure === "zero-keep" || erasure === "zero-unmap") return undefined;
      continue;
    }
    const zeros = zeroMap(slice.view, entry);
    const before: Maps = { zeros, stored: storedMap(slice.view, entry), hasHost: isMapped(run) || isCompressed };
    const after = erased(before, mask, inPlace(state, run, erasure), hasBacking);
    if (after === before) continue;
    changes.push((view) => {
      setMaps(view, entry, after.zeros, after.stored);
      if (after.hasHost) return;
      view.setUint32(entry, 0);
      view.setUint32(entry + 4, 0);
      freeRun(state, run, 1);
    });
  }
  return changes;
}

/** The erasure for a cluster that is mapped like `run`: not every one can stay in place. */
function inPlace(state: ImageState, run: MappingRun, erasure: Erasure): PlainErasure {
  // Compressed data cannot stay beside the zeros.
  if (erasure === "zero-keep") return run.kind === "compressed" ? "zero-unmap" : erasure;
  if (erasure === "reserve") return staysReserved(state, run) ? "zero-keep" : "forget";
  return erasure;
}

/** The maps after an erasure of the subclusters in `mask`; `before` itself when nothing changes. */
function erased(before: Maps, mask: number, erasure: PlainErasure, hasBacking: boolean): Maps {
  const unmapped = mask & ~(before.stored | before.zeros);
  switch (erasure) {
    case "discard-hint": {
      const shown = hasBacking ? unmapped : 0;
      if (mask === WHOLE) return before.hasHost || shown !== 0 ? ALL_ZERO : before;
      return changed(before, (mask & before.stored) | shown, 0);
    }
    case "forget":
      if (mask === WHOLE && before.hasHost) return hasBacking ? ALL_ZERO : { zeros: 0, stored: 0, hasHost: false };
      return hasBacking ? changed(before, mask, 0) : changed(before, 0, mask);
    case "zero-keep":
      return changed(before, mask, 0, before.hasHost);
    case "zero-unmap":
      return mask === WHOLE && before.hasHost ? ALL_ZERO : changed(before, mask, 0);
    case "rezero-keep":
    case "rezero-unmap":
      return hasBacking ? before : changed(before, unmapped, 0);
  }
}

/** Turns subclusters to zeros and forgets others. A host cluster goes with the last subcluster stored in it, unless it is to stay. */
function changed(before: Maps, toZero: number, toForget: number, staysMapped = false): Maps {
  const zeros = (before.zeros | toZero) & ~toForget;
  const stored = before.stored & ~(toZero | toForget);
  if (zeros === before.zeros && stored === before.stored) return before;
  return { zeros, stored, hasHost: before.hasHost && (staysMapped || stored !== 0 || before.stored === 0) };
}
