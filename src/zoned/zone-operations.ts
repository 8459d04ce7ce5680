/**
 * Open, close, finish and reset, for a range of zones or for all.
 *
 * `plan…` checks everything that can be checked in advance and changes nothing; `apply` then makes the change in
 * memory and cannot be refused as long as nothing happened to the zones in between. What has to
 * become durable first happens between the two, by the owner of the table.
 */
import { type ZoneIndex, zoneIndex } from "../base/units.js";
import * as errors from "./zone-errors.js";
import type { ZoneModel } from "./zone-model.js";
import { ZONE_CONDITION, type ZoneState } from "./zone-state.js";

export type ZoneOperation = "open" | "close" | "finish" | "reset";

export interface ZonePlan {
  readonly operation: ZoneOperation;
  /** The zones acted on, ascending; some may be there already. */
  readonly zones: readonly ZoneIndex[];
}

/** The zones of a range of bytes. */
export interface ZoneRange {
  readonly first: ZoneIndex;
  readonly last: ZoneIndex;
}

/** Throws `OUT_OF_RANGE`, or `ZONE_MISALIGNED` for anything but whole zones, no zone at all included. */
export function zonesOfRange(model: ZoneModel, operation: ZoneOperation, offset: number, length: number): ZoneRange {
  const { geometry } = model;
  if (!(offset >= 0 && length >= 0 && offset + length <= geometry.diskSize)) {
    throw errors.outOfRange(`zone ${operation}`, offset, length, geometry.diskSize);
  }
  if (!geometry.coversWholeZones(offset, length)) {
    throw errors.misalignedRange(`zone ${operation}`, offset, length, geometry.zoneSize);
  }
  return { first: geometry.indexOf(offset), last: geometry.indexOf(offset + length - 1) };
}

/**
 * Every zone of the range is acted on; one that cannot be refuses all. Throws `ZONE_NOT_SEQUENTIAL` for conventional
 * zones (a reset skips them when sequential ones follow), `ZONE_READ_ONLY`, `ZONE_OFFLINE`,
 * `ZONE_INVALID_TRANSITION` (open of a full zone), `ZONE_TOO_MANY_OPEN`, `ZONE_TOO_MANY_ACTIVE`.
 */
export function planRange(model: ZoneModel, operation: ZoneOperation, range: ZoneRange): ZonePlan {
  const first = firstSequential(model, operation, range);
  const zones: ZoneIndex[] = [];
  for (let zone = first; zone <= range.last; zone = zoneIndex(zone + 1)) {
    model.requireChangeable(`zone ${operation}`, zone);
    if (operation === "open" && model.state(zone) === "full") {
      throw errors.invalidTransition(zone, "zone open", "full");
    }
    zones.push(zone);
  }
  checkLimits(model, operation, zones);
  return { operation, zones };
}

const ALL_ACTS_ON: Readonly<Record<ZoneOperation, ReadonlySet<ZoneState>>> = {
  open: new Set<ZoneState>(["closed"]),
  close: new Set<ZoneState>(["implicitly-open", "explicitly-open"]),
  finish: new Set<ZoneState>(["implicitly-open", "explicitly-open", "closed"]),
  reset: new Set<ZoneState>(["empty", "implicitly-open", "explicitly-open", "closed", "full"]),
};

/**
 * The form for all zones, which picks its zones as the zoned command sets do: open takes the closed ones,
 * close the open ones, finish the open and closed ones, reset all sequential ones. Others are passed over.
 * Throws `ZONE_TOO_MANY_OPEN` when not all closed zones can be open at once.
 */
export function planAll(model: ZoneModel, operation: ZoneOperation): ZonePlan {
  const wanted = ALL_ACTS_ON[operation];
  const zones: ZoneIndex[] = [];
  for (let zone = zoneIndex(model.geometry.conventionalZones); zone < model.geometry.zoneCount; ) {
    if (wanted.has(model.state(zone))) zones.push(zone);
    zone = zoneIndex(zone + 1);
  }
  checkLimits(model, operation, zones);
  return { operation, zones };
}

/** Makes the planned change. No zone of the plan may have writes in flight. */
export function applyPlan(model: ZoneModel, plan: ZonePlan): void {
  switch (plan.operation) {
    case "open":
      applyOpen(model, plan.zones);
      break;
    case "close":
      for (const zone of plan.zones) model.closeOpen(zone);
      break;
    case "finish":
      for (const zone of plan.zones) model.setPointer(zone, model.geometry.writableEnd(zone));
      break;
    case "reset":
      for (const zone of plan.zones) model.setPointer(zone, model.geometry.start(zone));
      break;
  }
}

/** Zones that are open already come first, so that none of them is closed to make room for another of the plan. */
function applyOpen(model: ZoneModel, zones: readonly ZoneIndex[]): void {
  for (const zone of zones) if (model.state(zone) === "implicitly-open") model.openExplicitly(zone);
  for (const zone of zones) model.openExplicitly(zone);
}

function firstSequential(model: ZoneModel, operation: ZoneOperation, range: ZoneRange): ZoneIndex {
  if (!model.geometry.isConventional(range.first)) return range.first;
  const first = zoneIndex(model.geometry.conventionalZones);
  if (operation === "reset" && first <= range.last) return first;
  throw errors.notSequential(range.first, `zone ${operation}`);
}

function checkLimits(model: ZoneModel, operation: ZoneOperation, zones: readonly ZoneIndex[]): void {
  if (operation === "open") checkOpenLimits(model, zones);
  if (operation === "finish") checkFinishLimit(model, zones);
}

function checkOpenLimits(model: ZoneModel, zones: readonly ZoneIndex[]): void {
  const { resources } = model;
  const { maxOpen, maxActive } = resources;
  let open = resources.open;
  let active = resources.active;
  let closable = resources.closable;
  for (const zone of zones) if (model.state(zone) === "implicitly-open") closable -= 1;
  for (const zone of zones) {
    const state = model.state(zone);
    if (state === "implicitly-open" || state === "explicitly-open") continue;
    if (state === "empty") {
      if (maxActive !== 0 && active >= maxActive) throw errors.tooManyActive(zone, active, maxActive);
      active += 1;
    }
    if (maxOpen === 0 || open < maxOpen) open += 1;
    else if (closable > 0) closable -= 1;
    else throw errors.tooManyOpen(zone, open, maxOpen);
  }
}

/** Zones finish one after the other: an empty one is active for a moment, an active one gives its resource back. */
function checkFinishLimit(model: ZoneModel, zones: readonly ZoneIndex[]): void {
  const { maxActive } = model.resources;
  if (maxActive === 0) return;
  let active = model.resources.active;
  for (const zone of zones) {
    const condition = model.resources.condition(zone);
    if (condition === ZONE_CONDITION.empty) {
      if (active >= maxActive) throw errors.tooManyActive(zone, active, maxActive);
    } else if (condition !== ZONE_CONDITION.full) {
      active -= 1;
    }
  }
}
