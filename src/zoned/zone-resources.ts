/**
 * States of all zones, and the open and active resources they hold.
 *
 * Invariants, true between any two calls:
 *  - open = number of zones in an open state; active = open + number of closed zones. Never estimated.
 *  - An open zone count above the limit cannot arise. An active count above the limit can only come from
 *    the image that was opened (it held more closed zones than the limit); nothing new becomes active then.
 *  - `order` holds exactly the implicitly open zones. Explicitly open zones are never closed implicitly.
 *  - A refusal changes nothing: both limits are asked before any zone is closed to make room.
 */
import type { ZoneIndex } from "../base/units.js";
import { OpenOrder } from "./open-order.js";
import { tooManyActive, tooManyOpen } from "./zone-errors.js";
import { ZONE_CONDITION, type ZoneState } from "./zone-state.js";

const IMPLICIT = ZONE_CONDITION["implicitly-open"];
const EXPLICIT = ZONE_CONDITION["explicitly-open"];
const CLOSED = ZONE_CONDITION.closed;

const STATES_BY_CONDITION = new Map<number, ZoneState>(
  (Object.keys(ZONE_CONDITION) as ZoneState[]).map((state) => [ZONE_CONDITION[state], state]),
);

function isOpen(condition: number): boolean {
  return condition === IMPLICIT || condition === EXPLICIT;
}

export class ZoneResources {
  /** 0 = no limit. */
  readonly maxOpen: number;
  /** 0 = no limit. */
  readonly maxActive: number;
  readonly #conditions: Uint8Array;
  readonly #order: OpenOrder;
  #open = 0;
  #active = 0;

  constructor(zoneCount: number, maxOpen: number, maxActive: number) {
    this.maxOpen = maxOpen;
    this.maxActive = maxActive;
    this.#conditions = new Uint8Array(zoneCount);
    this.#order = new OpenOrder(zoneCount);
  }

  get open(): number {
    return this.#open;
  }

  get active(): number {
    return this.#active;
  }

  /** Implicitly open zones: those that can be closed to make room. */
  get closable(): number {
    return this.#order.length;
  }

  /** State as the number of `ZONE_CONDITION`, for hot paths. */
  condition(zone: ZoneIndex): number {
    return this.#conditions[zone] ?? 0;
  }

  state(zone: ZoneIndex): ZoneState {
    return STATES_BY_CONDITION.get(this.condition(zone)) ?? "not-wp";
  }

  /** Puts a zone into a state, counting what it takes and gives back. Asks no limit. */
  move(zone: ZoneIndex, to: number): void {
    const from = this.condition(zone);
    if (from === to) return;
    if (from === IMPLICIT) this.#order.remove(zone);
    if (to === IMPLICIT) this.#order.add(zone);
    const opened = Number(isOpen(to)) - Number(isOpen(from));
    this.#open += opened;
    this.#active += opened + Number(to === CLOSED) - Number(from === CLOSED);
    this.#conditions[zone] = to;
  }

  /** Opens an empty or closed zone, closing the least recently written implicitly open zone if there is no room. */
  openZone(zone: ZoneIndex, to: typeof IMPLICIT | typeof EXPLICIT): void {
    this.#requireRoom(zone);
    if (this.maxOpen !== 0 && this.#open >= this.maxOpen) this.#closeOldest();
    this.move(zone, to);
  }

  /** Notes a write to an implicitly open zone. */
  touch(zone: ZoneIndex): void {
    this.#order.touch(zone);
  }

  /** True when a zone that holds nothing could become active now. */
  canActivate(): boolean {
    return this.maxActive === 0 || this.#active < this.maxActive;
  }

  #requireRoom(zone: ZoneIndex): void {
    if (this.condition(zone) !== CLOSED && !this.canActivate()) throw tooManyActive(zone, this.#active, this.maxActive);
    if (this.maxOpen !== 0 && this.#open >= this.maxOpen && this.#order.length === 0) {
      throw tooManyOpen(zone, this.#open, this.maxOpen);
    }
  }

  #closeOldest(): void {
    const oldest = this.#order.oldest;
    if (oldest !== undefined) this.move(oldest, CLOSED);
  }
}
