/**
 * The state machine of a host-managed zoned disk (as ZBC and NVMe ZNS define one). Knows no file and no protocol;
 * moves no data. Its user asks before each write, does the I/O, and tells how it ended.
 *
 * Two pointers per sequential zone:
 *  - the *write pointer*: where the next write must start; advances when a write is submitted;
 *  - the *committed pointer*: all below it is written and acknowledged. Only this one may be made durable, and
 *    only what lies below it is shown to readers.
 *
 * Invariants, true between any two calls:
 *  - start <= committed <= write pointer <= writable end. Without writes in flight the first two are equal.
 *  - Writes in flight of a zone cover [committed, write pointer) without gap or overlap. So two appends
 *    can never get the same offset.
 *  - empty: both pointers at the start. Implicitly open and closed: the write pointer is past the start.
 *    full: both at the writable end. A zone whose last bytes are in flight is not full yet and keeps its
 *    resources; it takes no write either.
 *  - After a failed write the pointer is back where that write started, and nothing is accepted until
 *    nothing is in flight. A zone that falls back to its start is empty again, unless explicitly open.
 *  - Zones share nothing but the open and active resources: none ever waits for another.
 */
import type { MaybePromise } from "../base/maybe-promise.js";
import { SECTOR_SIZE, type ZoneIndex, zoneIndex } from "../base/units.js";
import { effectiveMaxAppend, type ZoneConfig } from "./zone-config.js";
import * as errors from "./zone-errors.js";
import { ZoneFlight, ZoneWrite } from "./zone-flight.js";
import { ZoneGeometry } from "./zone-geometry.js";
import { ZoneResources } from "./zone-resources.js";
import { ZONE_CONDITION, type ZoneDescriptor, type ZoneState } from "./zone-state.js";

const {
  "not-wp": NOT_WP,
  empty: EMPTY,
  "implicitly-open": IMPLICIT,
  "explicitly-open": EXPLICIT,
  closed: CLOSED,
  full: FULL,
  "read-only": READ_ONLY,
  offline: OFFLINE,
} = ZONE_CONDITION;

/** What an administrator can force on a zone. `online` returns it to the state its pointer implies. */
export type ForcedState = "read-only" | "offline" | "online";

/** Zones whose flight is kept while nothing is in it: zones are written again and again. */
const KEPT_FLIGHTS = 256;

export class ZoneModel {
  readonly geometry: ZoneGeometry;
  readonly resources: ZoneResources;
  /** Bytes of the largest append. */
  readonly maxAppendBytes: number;
  readonly #writePointers: Float64Array;
  /** Of zones with writes in flight, and of some that had any lately. */
  readonly #flights = new Map<number, ZoneFlight>();
  /** Zones with writes in flight. */
  #busy = 0;
  #dirty = new Set<ZoneIndex>();
  #forced = 0;
  #onMove: ((zone: ZoneIndex) => void) | undefined = undefined;
  #onIdle: ((zone: ZoneIndex) => void) | undefined = undefined;

  /**
   * `writePointers`: one per zone, bytes on the disk, each already known to lie within its zone; those of
   * conventional zones are ignored. Left out: all sequential zones are empty. States follow from them:
   * partly written zones are closed and hold an active resource, even beyond the limit.
   */
  constructor(config: ZoneConfig, diskSize: number, writePointers?: ArrayLike<number>) {
    this.geometry = new ZoneGeometry(config, diskSize);
    this.maxAppendBytes = effectiveMaxAppend(config);
    this.resources = new ZoneResources(config.zoneCount, config.maxOpenZones, config.maxActiveZones);
    this.#writePointers = new Float64Array(config.zoneCount);
    for (let i = 0; i < config.zoneCount; i += 1) {
      const zone = zoneIndex(i);
      const start = this.geometry.start(zone);
      this.#writePointers[i] = this.geometry.isConventional(zone) ? start : (writePointers?.[i] ?? start);
      this.resources.move(zone, this.#derivedCondition(zone));
    }
  }

  /** Called whenever the last write in flight of a zone has ended. */
  set onIdle(listener: ((zone: ZoneIndex) => void) | undefined) {
    this.#onIdle = listener;
  }

  /** Called whenever the committed pointer of a zone has moved. */
  set onMove(listener: ((zone: ZoneIndex) => void) | undefined) {
    this.#onMove = listener;
  }

  // --- writes --------------------------------------------------------------------------------

  /**
   * Accepts or refuses a write of `length` bytes at `offset`: checks, takes resources, advances the pointer.
   * `undefined` for a write within conventional zones, which needs no ticket. Otherwise the caller must
   * hand the ticket to `complete` or `fail`, exactly once.
   *
   * Throws, changing nothing: `ZONE_INVALID_WRITE`, `ZONE_BOUNDARY`, `ZONE_FULL`, `ZONE_READ_ONLY`, `ZONE_OFFLINE`,
   * `ZONE_TOO_MANY_OPEN`, `ZONE_TOO_MANY_ACTIVE`, `ZONE_MISALIGNED`, `ZONE_ABORTED` (a write failed and others of the
   * zone are still in flight), `OUT_OF_RANGE`.
   */
  submitWrite(offset: number, length: number): ZoneWrite | undefined {
    this.#requireSectors("write", offset, length);
    const zone = this.geometry.indexOf(offset);
    if (this.geometry.isConventional(zone)) {
      this.#requireConventional(zone, offset, length);
      return undefined;
    }
    const flight = this.#requireWritable(zone, offset);
    const writePointer = this.writePointer(zone);
    if (offset !== writePointer) throw errors.invalidWrite(zone, offset, writePointer);
    return this.#accept(zone, offset, length, flight);
  }

  /**
   * Accepts or refuses an append of `length` bytes to the zone that starts at `zoneStart`; the ticket tells the
   * offset it got. Throws what `submitWrite` throws, `ZONE_MISALIGNED` for an offset that starts no zone,
   * `ZONE_NOT_SEQUENTIAL` for a conventional zone, `ZONE_APPEND_TOO_LARGE`.
   */
  submitAppend(zoneStart: number, length: number): ZoneWrite {
    this.#requireZoneStart("append", zoneStart);
    this.#requireSectors("append", zoneStart, length);
    const zone = this.geometry.indexOf(zoneStart);
    if (this.geometry.isConventional(zone)) throw errors.notSequential(zone, "append");
    if (length > this.maxAppendBytes) throw errors.appendTooLarge(zone, length, this.maxAppendBytes);
    const flight = this.#requireWritable(zone, zoneStart);
    return this.#accept(zone, this.writePointer(zone), length, flight);
  }

  /**
   * The I/O of `write` ended well. Returns `undefined` when it is acknowledged at once, else a promise that resolves
   * after all earlier writes of the zone, or rejects with `ZONE_ABORTED` when one of them fails. Throws
   * `ZONE_ABORTED` when one has failed already.
   */
  complete(write: ZoneWrite): MaybePromise<void> {
    if (write.phase === "aborted") throw this.#drain(write);
    const { zone } = write;
    const flight = this.#flights.get(zone);
    if (flight === undefined || write.phase !== "flying") throw new TypeError("This write has ended already.");
    if (flight.head !== write) return write.wait();
    flight.acknowledgeHead();
    this.#dirty.add(zone);
    if (flight.head === undefined) this.#settle(zone, flight);
    this.#onMove?.(zone);
    return undefined;
  }

  /**
   * The I/O of `write` failed with `cause`. The pointer returns to where it started and all later writes in flight
   * of the zone fail too. Returns the error to give to whoever asked for the write.
   */
  fail(write: ZoneWrite, cause: unknown): unknown {
    if (write.phase === "aborted") return this.#drain(write);
    const { zone } = write;
    const flight = this.#flights.get(zone);
    if (flight === undefined || write.phase !== "flying") throw new TypeError("This write has ended already.");
    flight.cutAt(write, cause);
    this.#writePointers[zone] = write.offset;
    const condition = this.resources.condition(zone);
    if (write.offset === this.geometry.start(zone) && condition !== EXPLICIT) this.resources.move(zone, EMPTY);
    this.#retire(zone, flight);
    return cause;
  }

  /** True while a write of a zone in [first, last] is in flight. */
  isBusy(first: ZoneIndex, last: ZoneIndex): boolean {
    if (this.#busy === 0) return false;
    if (first === last) return this.#isFlying(first);
    for (const [zone, flight] of this.#flights) if (zone >= first && zone <= last && !flight.idle) return true;
    return false;
  }

  // --- state ---------------------------------------------------------------------------------

  writePointer(zone: ZoneIndex): number {
    return this.#writePointers[zone] ?? 0;
  }

  /** All below is written and acknowledged; never past a write in flight. */
  committedPointer(zone: ZoneIndex): number {
    const head = this.#busy === 0 ? undefined : this.#flights.get(zone)?.head;
    return head === undefined ? this.writePointer(zone) : head.offset;
  }

  state(zone: ZoneIndex): ZoneState {
    return this.resources.state(zone);
  }

  describe(zone: ZoneIndex): ZoneDescriptor {
    const { geometry } = this;
    const start = geometry.start(zone);
    return {
      index: zone,
      start,
      length: geometry.end(zone) - start,
      capacity: geometry.writableEnd(zone) - start,
      writePointer: this.writePointer(zone),
      state: this.state(zone),
      type: geometry.isConventional(zone) ? "conventional" : "sequential-write-required",
    };
  }

  /** Zones from the one that holds byte `offset`, at most `count`. `OUT_OF_RANGE` for an offset off the disk. */
  report(offset = 0, count = Number.POSITIVE_INFINITY): ZoneDescriptor[] {
    if (!(offset >= 0 && offset < this.geometry.diskSize)) {
      throw errors.outOfRange("zone report", offset, 0, this.geometry.diskSize);
    }
    const first = this.geometry.indexOf(offset);
    const end = Math.min(first + Math.max(count, 0), this.geometry.zoneCount);
    const descriptors: ZoneDescriptor[] = [];
    for (let zone = first; zone < end; zone = zoneIndex(zone + 1)) descriptors.push(this.describe(zone));
    return descriptors;
  }

  /** Zones whose committed pointer moved since the last call, in the order in which they first did. */
  takeDirty(): ReadonlySet<ZoneIndex> {
    const taken = this.#dirty;
    if (taken.size > 0) this.#dirty = new Set();
    return taken;
  }

  /** Gives back what `takeDirty` returned, when it could not be made durable. */
  markDirty(zones: Iterable<ZoneIndex>): void {
    for (const zone of zones) this.#dirty.add(zone);
  }

  get hasDirty(): boolean {
    return this.#dirty.size > 0;
  }

  // --- changes by management; the zone must have no writes in flight ---------------------------

  /** Puts a sequential zone into the state that follows from `pointer`, committed: reset, finish, restore. */
  setPointer(zone: ZoneIndex, pointer: number): void {
    this.#requireIdle(zone);
    this.#writePointers[zone] = pointer;
    this.#dirty.add(zone);
    this.resources.move(zone, this.#derivedCondition(zone));
    this.#onMove?.(zone);
  }

  /** Opens an empty, closed or implicitly open zone explicitly. Throws as `submitWrite` when a limit is reached. */
  openExplicitly(zone: ZoneIndex): void {
    const condition = this.resources.condition(zone);
    if (condition === IMPLICIT) this.resources.move(zone, EXPLICIT);
    else if (condition !== EXPLICIT) this.resources.openZone(zone, EXPLICIT);
  }

  /** Closes an open zone; one in which nothing is written becomes empty. */
  closeOpen(zone: ZoneIndex): void {
    const condition = this.resources.condition(zone);
    if (condition !== IMPLICIT && condition !== EXPLICIT) return;
    this.resources.move(zone, this.writePointer(zone) === this.geometry.start(zone) ? EMPTY : CLOSED);
  }

  /**
   * Makes a zone fail its writes (`read-only`) or every access (`offline`), or takes that away. A zone
   * that comes back closed needs a free active resource, else `ZONE_TOO_MANY_ACTIVE`.
   */
  force(zone: ZoneIndex, state: ForcedState): void {
    this.#requireIdle(zone);
    const wasForced = this.#isForced(this.resources.condition(zone));
    if (state !== "online") {
      this.resources.move(zone, ZONE_CONDITION[state]);
      if (!wasForced) this.#forced += 1;
      return;
    }
    if (!wasForced) return;
    const condition = this.#derivedCondition(zone);
    if (condition === CLOSED && !this.resources.canActivate()) {
      throw errors.tooManyActive(zone, this.resources.active, this.resources.maxActive);
    }
    this.resources.move(zone, condition);
    this.#forced -= 1;
  }

  /** Throws `ZONE_OFFLINE` when a zone of the range is offline. */
  requireOnline(operation: string, first: ZoneIndex, last: ZoneIndex): void {
    if (this.#forced === 0) return;
    for (let zone = first; zone <= last; zone = zoneIndex(zone + 1)) {
      if (this.resources.condition(zone) === OFFLINE) throw errors.offlineZone(zone, operation);
    }
  }

  /** Throws `ZONE_OFFLINE` or `ZONE_READ_ONLY` for a zone that takes no changes. */
  requireChangeable(operation: string, zone: ZoneIndex): void {
    const condition = this.resources.condition(zone);
    if (condition === OFFLINE) throw errors.offlineZone(zone, operation);
    if (condition === READ_ONLY) throw errors.readOnlyZone(zone, operation);
  }

  // --- inside --------------------------------------------------------------------------------

  /** The state that position alone implies. */
  #derivedCondition(zone: ZoneIndex): number {
    if (this.geometry.isConventional(zone)) return NOT_WP;
    const pointer = this.writePointer(zone);
    // Order matters for a zone without room, which an unaligned old image may have: it is full.
    if (pointer >= this.geometry.writableEnd(zone)) return FULL;
    return pointer === this.geometry.start(zone) ? EMPTY : CLOSED;
  }

  #isForced(condition: number): boolean {
    return condition === READ_ONLY || condition === OFFLINE;
  }

  #accept(zone: ZoneIndex, offset: number, length: number, flying: ZoneFlight | undefined): ZoneWrite {
    const end = this.geometry.writableEnd(zone);
    if (offset + length > end) throw errors.boundary(zone, offset, length, end);
    const condition = this.resources.condition(zone);
    if (condition === IMPLICIT) this.resources.touch(zone);
    else if (condition !== EXPLICIT) this.resources.openZone(zone, IMPLICIT);
    this.#writePointers[zone] = offset + length;
    const write = new ZoneWrite(zone, offset, length);
    let flight = flying;
    if (flight === undefined) {
      flight = new ZoneFlight();
      this.#flights.set(zone, flight);
    }
    if (flight.idle) this.#busy += 1;
    flight.add(write);
    return write;
  }

  /** Refuses writes that no offset could make right. Returns the flight of the zone, if it has one. */
  #requireWritable(zone: ZoneIndex, offset: number): ZoneFlight | undefined {
    this.requireChangeable("write", zone);
    const flight = this.#flights.get(zone);
    if (flight !== undefined && flight.broken) throw errors.aborted(zone, flight.failedAt, flight.failure);
    if (this.writePointer(zone) >= this.geometry.writableEnd(zone)) throw errors.zoneFull(zone, offset);
    return flight;
  }

  #requireConventional(first: ZoneIndex, offset: number, length: number): void {
    const limit = this.geometry.sequentialStart;
    if (offset + length > limit) throw errors.crossesIntoSequential(first, offset, length, limit);
    if (this.#forced === 0) return;
    const last = this.geometry.indexOf(offset + length - 1);
    for (let zone = first; zone <= last; zone = zoneIndex(zone + 1)) this.requireChangeable("write", zone);
  }

  #requireSectors(operation: string, offset: number, length: number): void {
    if (offset % SECTOR_SIZE !== 0 || length % SECTOR_SIZE !== 0 || !(length > 0)) {
      throw errors.misalignedWrite(operation, offset, length, SECTOR_SIZE);
    }
    if (!(offset >= 0 && offset < this.geometry.diskSize)) {
      throw errors.outOfRange(operation, offset, length, this.geometry.diskSize);
    }
  }

  #requireZoneStart(operation: string, offset: number): void {
    if (!this.geometry.isZoneStart(offset)) throw errors.misalignedStart(operation, offset, this.geometry.zoneSize);
  }

  #requireIdle(zone: ZoneIndex): void {
    if (this.#isFlying(zone)) throw new TypeError(`Zone ${zone} has writes in flight.`);
  }

  /** All live writes of the zone are acknowledged. */
  #settle(zone: ZoneIndex, flight: ZoneFlight): void {
    if (this.writePointer(zone) === this.geometry.writableEnd(zone)) this.resources.move(zone, FULL);
    this.#retire(zone, flight);
  }

  /** The I/O of an abandoned write has ended. */
  #drain(write: ZoneWrite): Error {
    write.phase = "ended";
    const flight = this.#flights.get(write.zone);
    if (flight !== undefined) {
      flight.draining -= 1;
      this.#retire(write.zone, flight);
    }
    return write.abortReason ?? errors.aborted(write.zone, write.offset, undefined);
  }

  #retire(zone: ZoneIndex, flight: ZoneFlight): void {
    if (!flight.idle) return;
    this.#busy -= 1;
    if (flight.broken || this.#flights.size > KEPT_FLIGHTS) this.#flights.delete(zone);
    this.#onIdle?.(zone);
  }

  #isFlying(zone: ZoneIndex): boolean {
    return this.#flights.get(zone)?.idle === false;
  }
}
