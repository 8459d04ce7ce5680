/**
 * A zoned disk in a qcow2 image: the zone model decides, the engine stores, the pointer table remembers.
 *
 *  - Every change of a sequential zone goes through a ticket of the model or through the gate, so nothing
 *    bypasses the write pointer.
 *  - Reads see data below the committed pointer only. What the engine has mapped above it stays hidden.
 *  - A write that the engine finishes at once, with nothing else in flight in its zone, costs no promise.
 */
import { ZcowError } from "../../../base/errors.js";
import { isPromise, type MaybePromise, whenAll } from "../../../base/maybe-promise.js";
import { SECTOR_SIZE, type ZoneIndex, zoneIndex } from "../../../base/units.js";
import { BaseBlockDevice } from "../../../block/base-device.js";
import type { BlockExtent, WriteOptions, ZonedLimits } from "../../../block/block-device.js";
import type { ForcedZoneState, ZonedDevice } from "../../../block/zoned-device.js";
import * as errors from "../../../zoned/zone-errors.js";
import type { ZoneWrite } from "../../../zoned/zone-flight.js";
import { ZoneGate } from "../../../zoned/zone-gate.js";
import type { ZoneModel } from "../../../zoned/zone-model.js";
import {
  applyPlan,
  planAll,
  planRange,
  type ZoneOperation,
  type ZonePlan,
  zonesOfRange,
} from "../../../zoned/zone-operations.js";
import { isAllData, readRuns, requireReadable } from "../../../zoned/zone-reads.js";
import type { ZoneDescriptor } from "../../../zoned/zone-state.js";
import type { BitmapTracking } from "../bitmaps/bitmap-tracking.js";
import type { DirtyBits } from "../bitmaps/dirty-bits.js";
import type { DiscardMode, Qcow2Engine } from "../engine-contract.js";
import type { Qcow2Header } from "../header.js";
import { dropLeftovers, zoneRuns } from "./leftovers.js";
import { PointerChanges } from "./pointer-changes.js";
import type { PointerTable } from "./pointer-table.js";
import { ZoneDurability } from "./zone-durability.js";

const ZONE_OPERATIONS: readonly ZoneOperation[] = ["open", "close", "finish", "reset"];
const FORCED_STATES: readonly ForcedZoneState[] = ["read-only", "offline", "online"];

export class ZonedQcow2Device extends BaseBlockDevice implements ZonedDevice, BitmapTracking {
  readonly #engine: Qcow2Engine;
  readonly #model: ZoneModel;
  readonly #gate: ZoneGate;
  /** Absent on devices that can only be read. */
  readonly #durability: ZoneDurability | undefined;
  readonly #afterReset: DiscardMode;

  /**
   * `table`: left out for a device that can only be read, whatever the engine could do. `keepSpace`: zones keep their
   * clusters when they are reset.
   */
  constructor(engine: Qcow2Engine, model: ZoneModel, table: PointerTable | undefined, keepSpace = false) {
    const writable = engine.writable && table !== undefined;
    super({
      format: "qcow2",
      name: engine.storage.name,
      size: engine.geometry.size,
      readOnly: !writable,
      limits: {
        // Only old images that can but be read have an odd size; their last bytes must stay in reach.
        requestAlignment: engine.geometry.size % SECTOR_SIZE === 0 ? SECTOR_SIZE : 1,
        optimalAlignment: engine.geometry.clusterSize,
        zoned: zonedLimits(model),
      },
      readAlignment: 1,
    });
    this.#engine = engine;
    this.#model = model;
    this.#gate = new ZoneGate(model);
    this.#afterReset = keepSpace ? "reserve" : "forget";
    this.#durability = writable ? new ZoneDurability(engine, model, table) : undefined;
    if (writable) engine.allowLatePadding?.(model.geometry.start(zoneIndex(model.geometry.conventionalZones)));
    if (writable && engine.journal !== undefined) PointerChanges.watch(model, table, engine.journal);
  }

  /** The header as it is in the file now. */
  get header(): Qcow2Header {
    return this.#engine.header;
  }

  dirtyBits(name: string): DirtyBits | undefined {
    return this.#engine.bitmaps?.bits(name);
  }

  // --- the zoned contract -----------------------------------------------------------------------

  report(offset?: number, count?: number): ZoneDescriptor[] {
    this.assertOpen("zone report");
    return this.#model.report(offset, count);
  }

  append(zoneStart: number, from: Uint8Array, options?: WriteOptions): MaybePromise<number> {
    this.assertOpen("append");
    this.assertBytes("append", from);
    this.assertWritable("append");
    const zone = this.#model.geometry.indexOf(zoneStart);
    const appended = this.#mustWait(zone)
      ? this.#later(zone, () => this.#appendNow(zoneStart, from))
      : this.#appendNow(zoneStart, from);
    const result = options?.fua === true ? this.#thenFlush(appended) : appended;
    return isPromise(result) ? this.track(result) : result;
  }

  openZones(offset: number, length: number): Promise<void> {
    return this.#operate("open", offset, length);
  }

  closeZones(offset: number, length: number): Promise<void> {
    return this.#operate("close", offset, length);
  }

  finishZones(offset: number, length: number): Promise<void> {
    return this.#operate("finish", offset, length);
  }

  resetZones(offset: number, length: number): Promise<void> {
    return this.#operate("reset", offset, length);
  }

  async manageAllZones(operation: ZoneOperation): Promise<void> {
    this.#requireWord("zone operation", operation, ZONE_OPERATIONS);
    this.assertOpen(`zone ${operation}`);
    this.assertWritable(`zone ${operation}`);
    const { conventionalZones, zoneCount } = this.#model.geometry;
    const work = (): Promise<void> => this.#perform(planAll(this.#model, operation));
    await this.track(this.#gate.exclusively(zoneIndex(conventionalZones), zoneIndex(zoneCount - 1), work));
  }

  async setZoneState(offset: number, state: ForcedZoneState): Promise<void> {
    this.#requireWord("zone state", state, FORCED_STATES);
    this.assertRequest("zone state", offset, SECTOR_SIZE);
    const { geometry } = this.#model;
    if (!geometry.isZoneStart(offset)) throw errors.misalignedStart("zone state", offset, geometry.zoneSize);
    const zone = geometry.indexOf(offset);
    await this.track(this.#gate.exclusively(zone, zone, () => this.#model.force(zone, state)));
  }

  // --- hooks of the base --------------------------------------------------------------------------

  protected override doRead(offset: number, into: Uint8Array): MaybePromise<void> {
    requireReadable(this.#model, offset, into.length);
    if (isAllData(this.#model, offset, into.length)) return this.#engine.read(offset, into);
    const waits: Promise<void>[] = [];
    for (const run of readRuns(this.#model, offset, into.length)) {
      const part = into.subarray(run.offset - offset, run.offset - offset + run.length);
      const wait = run.data ? this.#engine.read(run.offset, part) : void part.fill(0);
      if (isPromise(wait)) waits.push(wait);
    }
    return waits.length === 0 ? undefined : whenAll(waits);
  }

  protected override doWrite(offset: number, from: Uint8Array): MaybePromise<void> {
    const zone = this.#model.geometry.indexOf(offset);
    if (this.#mustWait(zone)) return this.#later(zone, () => this.#writeNow(offset, from));
    return this.#writeNow(offset, from);
  }

  protected override doWriteCompressed(offset: number, from: Uint8Array): MaybePromise<void> {
    this.#engine.assertCompressible(offset, from.length);
    const zone = this.#model.geometry.indexOf(offset);
    if (this.#mustWait(zone)) return this.#later(zone, () => this.#writeCompressedNow(offset, from));
    return this.#writeCompressedNow(offset, from);
  }

  protected override doWriteZeroes(offset: number, length: number, unmap: boolean): MaybePromise<void> {
    const zone = this.#model.geometry.indexOf(offset);
    if (this.#mustWait(zone)) return this.#later(zone, () => this.#writeZeroesNow(offset, length, unmap));
    return this.#writeZeroesNow(offset, length, unmap);
  }

  protected override doDiscard(offset: number, length: number): MaybePromise<void> {
    const { geometry } = this.#model;
    const last = geometry.indexOf(offset + length - 1);
    if (!geometry.isConventional(last)) throw errors.discardOfSequential(last, offset, length);
    for (let zone = geometry.indexOf(offset); zone <= last; zone = zoneIndex(zone + 1)) {
      this.#model.requireChangeable("discard", zone);
    }
    return this.#engine.discard(offset, length, "hint");
  }

  protected override doFlush(): MaybePromise<void> {
    return this.#durability?.flush();
  }

  /** What lies above a write pointer reads as zeros, stored or not. */
  protected override async *doExtents(offset: number, length: number): AsyncGenerator<BlockExtent> {
    for (const run of readRuns(this.#model, offset, length)) {
      for await (const extent of this.#engine.extents(run.offset, run.length)) {
        yield run.data || extent.zero
          ? extent
          : { ...extent, kind: "zero", hostOffset: undefined, compressed: false, zero: true };
      }
    }
  }

  protected override doClose(): Promise<void> {
    return this.#engine.close();
  }

  // --- writes -----------------------------------------------------------------------------------

  #writeNow(offset: number, from: Uint8Array): MaybePromise<void> {
    this.#durability?.requireCertain(offset);
    const ticket = this.#model.submitWrite(offset, from.length);
    let wait: MaybePromise<void>;
    try {
      wait = this.#engine.write(offset, from);
    } catch (error) {
      throw ticket === undefined ? error : this.#model.fail(ticket, error);
    }
    return this.#end(ticket, wait);
  }

  /** What is mapped at the write pointer of a sequential zone was left by a write that nobody acknowledged: it is replaced. */
  #writeCompressedNow(offset: number, from: Uint8Array): MaybePromise<void> {
    this.#durability?.requireCertain(offset);
    const ticket = this.#model.submitWrite(offset, from.length);
    return this.#end(ticket, this.#engine.writeCompressed(offset, from, ticket !== undefined));
  }

  #writeZeroesNow(offset: number, length: number, unmap: boolean): MaybePromise<void> {
    this.#durability?.requireCertain(offset);
    const ticket = this.#model.submitWrite(offset, length);
    let wait: MaybePromise<void>;
    try {
      wait = this.#engine.writeZeroes(offset, length, unmap);
    } catch (error) {
      throw ticket === undefined ? error : this.#model.fail(ticket, error);
    }
    return this.#end(ticket, wait);
  }

  #appendNow(zoneStart: number, from: Uint8Array): MaybePromise<number> {
    this.#durability?.requireCertain(zoneStart);
    const ticket = this.#model.submitAppend(zoneStart, from.length);
    let wait: MaybePromise<void>;
    try {
      wait = this.#engine.write(ticket.offset, from);
    } catch (error) {
      throw this.#model.fail(ticket, error);
    }
    const end = this.#end(ticket, wait);
    return end === undefined ? ticket.offset : end.then(() => ticket.offset);
  }

  /** Ends a write with its I/O. Without a ticket (conventional zones) there is nothing to end. */
  #end(ticket: ZoneWrite | undefined, wait: MaybePromise<void>): MaybePromise<void> {
    if (ticket === undefined) return wait;
    return wait === undefined ? this.#model.complete(ticket) : this.#endAfter(ticket, wait);
  }

  async #endAfter(ticket: ZoneWrite, wait: Promise<void>): Promise<void> {
    try {
      await wait;
    } catch (error) {
      throw this.#model.fail(ticket, error);
    }
    const acknowledged = this.#model.complete(ticket);
    if (acknowledged !== undefined) await acknowledged;
  }

  #mustWait(zone: ZoneIndex): boolean {
    return this.#gate.blocks(zone) || this.#durability?.isDoubtful(zone) === true;
  }

  /** Submits a write after the operations that came before it, the repair of a doubtful table entry among them. */
  #later<T>(zone: ZoneIndex, submit: () => MaybePromise<T>): Promise<T> {
    if (!this.#gate.blocks(zone)) {
      const repair = this.#gate.exclusively(zone, zone, () => this.#durability?.resolveDoubts());
      // When it fails, the writes behind it find the doubt still there, and fail with the reason.
      repair.catch(() => undefined);
    }
    return this.#gate.afterOperations(zone, submit);
  }

  async #thenFlush(appended: MaybePromise<number>): Promise<number> {
    const offset = isPromise(appended) ? await appended : appended;
    await this.doFlush();
    return offset;
  }

  // --- zone operations --------------------------------------------------------------------------

  /** Callers without types can send any word; an unknown one would put a zone into a state that does not exist. */
  #requireWord(what: string, word: string, known: readonly string[]): void {
    if (known.includes(word)) return;
    throw new ZcowError("INVALID_ARGUMENT", `${what} '${word}' is not one of ${known.join(", ")}`, {
      data: { path: this.name, field: what, value: word },
    });
  }

  async #operate(operation: ZoneOperation, offset: number, length: number): Promise<void> {
    this.assertOpen(`zone ${operation}`);
    this.assertWritable(`zone ${operation}`);
    const range = zonesOfRange(this.#model, operation, offset, length);
    const work = (): Promise<void> => this.#perform(planRange(this.#model, operation, range));
    await this.track(this.#gate.exclusively(range.first, range.last, work));
  }

  async #perform(plan: ZonePlan): Promise<void> {
    switch (plan.operation) {
      case "open":
      case "close":
        applyPlan(this.#model, plan);
        break;
      case "finish":
        await dropLeftovers(this.#engine, this.#model, plan.zones);
        await this.#durability?.finish(plan);
        this.#engine.journal?.commit();
        break;
      case "reset":
        await this.#durability?.reset(plan);
        // An older record of the pointer must not bring the zone back.
        this.#engine.journal?.commit();
        for (const run of zoneRuns(this.#model, plan.zones)) {
          await this.#engine.discard(run.offset, run.length, this.#afterReset);
        }
        break;
    }
  }
}

function zonedLimits(model: ZoneModel): ZonedLimits {
  const { geometry, resources } = model;
  return {
    model: "host-managed",
    zoneSize: geometry.zoneSize,
    zoneCapacity: geometry.zoneCapacity,
    zoneCount: geometry.zoneCount,
    conventionalZones: geometry.conventionalZones,
    maxOpenZones: resources.maxOpen,
    maxActiveZones: resources.maxActive,
    maxAppendBytes: model.maxAppendBytes,
  };
}
