/**
 * When write pointers reach the file (docs/format.md, "Durability"): flush, finish and reset, one after the other.
 *
 * The order in which things become durable, "|" being a barrier:
 *
 *     flush    pointers noted | guest data | refcounts | L2, L1 | entries of the noted pointers |
 *     finish   leftovers past the pointer dropped | guest data | refcounts | L2, L1 | entry = writable end |
 *     reset    entry = start | mapping dropped in memory, durable with the next flush
 *
 * What a crash can leave in the file:
 *
 *     crash during     | entry             | data and mapping               | the zone then shows
 *     -----------------+-------------------+--------------------------------+------------------------------------------
 *     writes           | last flushed      | below the entry all; more      | what was flushed; zeros from the entry on,
 *                      |                   | above it, in any part          | whatever is mapped there
 *     flush            | old or noted      | below the noted pointer all,   | the old or the noted state
 *                      |                   | before any entry is written    |
 *     finish           | old or the end    | below the old pointer all,     | the old state, or full with zeros past it
 *                      |                   | nothing mapped past it         |
 *     reset            | old or start      | all still mapped               | the old state, or empty: zeros everywhere
 *     after reset      | start             | mapped, partly or not          | empty. What is still mapped is hidden, is
 *                      |                   |                                | overwritten by writes, dropped by finish and
 *                      |                   |                                | reset, and freed with them
 *
 * When a step fails the zone keeps its old state in memory, and:
 *
 *     failed           | entry in the file | so that
 *     -----------------+-------------------+---------------------------------------------------------------------------
 *     flush            | old or noted      | both are true; the zones stay dirty for the next flush
 *     reset            | old or start      | the table is in doubt there: the next flush writes the old entry again
 *     finish           | old or the end    | the end would cover what is written to the zone next, before it is durable.
 *                      |                   | So these zones take no writes until the entry is written again
 *
 * Where a journal is kept it gets the pointers of all doubtful sectors: a killed process leaves the old state.
 */
import { ZcowError } from "../../../base/errors.js";
import { isPromise, type MaybePromise } from "../../../base/maybe-promise.js";
import { Mutex } from "../../../base/mutex.js";
import type { ZoneIndex } from "../../../base/units.js";
import type { ZoneModel } from "../../../zoned/zone-model.js";
import { applyPlan, type ZonePlan } from "../../../zoned/zone-operations.js";
import type { Qcow2Engine } from "../engine-contract.js";
import type { PointerTable } from "./pointer-table.js";

export class ZoneDurability {
  readonly #engine: Qcow2Engine;
  readonly #model: ZoneModel;
  readonly #table: PointerTable;
  readonly #mutex = new Mutex();
  /** Steps that run or wait for their turn. */
  #steps = 0;
  /** A flush that waits for its turn: it will cover whoever asks until then. */
  #waitingFlush: Promise<void> | undefined;
  /** Zones whose entry may say full though they are not. */
  readonly #doubtful = new Set<ZoneIndex>();
  /** Why the table could not be written the last time that failed. */
  #doubt: unknown;

  constructor(engine: Qcow2Engine, model: ZoneModel, table: PointerTable) {
    this.#engine = engine;
    this.#model = model;
    this.#table = table;
  }

  /** Makes all that was acknowledged at the call durable, pointers included. */
  flush(): MaybePromise<void> {
    if (this.#waitingFlush !== undefined) return this.#waitingFlush;
    // A step under way may be about to write a pointer that this flush has to vouch for.
    if (this.#steps === 0 && !this.#model.hasDirty && !this.#table.inDoubt) return this.#engine.flush();
    let started = false;
    const turn = this.#inTurn(() => {
      started = true;
      this.#waitingFlush = undefined;
      return this.#flushNow();
    });
    if (!started) this.#waitingFlush = turn;
    return turn;
  }

  /** Makes the zones of the plan full, durably. Nothing may be in flight in them, nothing mapped past their pointers. */
  finish(plan: ZonePlan): Promise<void> {
    return this.#inTurn(async () => {
      await this.#flushEngine();
      const { geometry } = this.#model;
      const open = plan.zones.filter((zone) => this.#model.state(zone) !== "full");
      try {
        await this.#commit(plan.zones.map((zone) => [zone, geometry.writableEnd(zone)]));
      } catch (error) {
        for (const zone of open) this.#doubtful.add(zone);
        throw error;
      }
      applyPlan(this.#model, plan);
    });
  }

  /** Makes the zones of the plan empty, durably. Nothing may be in flight in them. Their mapping is still there. */
  reset(plan: ZonePlan): Promise<void> {
    return this.#inTurn(async () => {
      await this.#commit(plan.zones.map((zone) => [zone, this.#model.geometry.start(zone)]));
      applyPlan(this.#model, plan);
    });
  }

  /** The zone must not be written before `resolveDoubts` has succeeded. */
  isDoubtful(zone: ZoneIndex): boolean {
    return this.#doubtful.size > 0 && this.#doubtful.has(zone);
  }

  /** Throws `IO_ERROR` when the zone of byte `offset` must not be written. */
  requireCertain(offset: number): void {
    if (this.#doubtful.size === 0) return;
    const zone = this.#model.geometry.indexOf(offset);
    if (!this.#doubtful.has(zone)) return;
    throw new ZcowError(
      "IO_ERROR",
      `Zone ${zone}: a failed finish left its entry of the write-pointer table in doubt, and the entry could not be written again`,
      { data: { structure: `zone ${zone}`, offset, path: this.#engine.storage.name }, cause: this.#doubt },
    );
  }

  /** Writes again what may or may not be in the file. */
  resolveDoubts(): Promise<void> {
    return this.#inTurn(() => this.#commit([]));
  }

  async #flushNow(): Promise<void> {
    const zones = this.#model.takeDirty();
    // Noted before the data is flushed: what is acknowledged later may not be durable when the entries are written.
    const entries = Array.from(zones, (zone) => [zone, this.#model.committedPointer(zone)] as const);
    try {
      await this.#flushEngine();
      // Where no table had changed nobody has yet, and an older record must not take back what the entries are about to say.
      this.#engine.journal?.commit();
      await this.#commit(entries);
    } catch (error) {
      this.#model.markDirty(zones);
      throw error;
    }
  }

  async #flushEngine(): Promise<void> {
    const wait = this.#engine.flush();
    if (isPromise(wait)) await wait;
  }

  async #commit(entries: readonly (readonly [ZoneIndex, number])[]): Promise<void> {
    try {
      await this.#table.commit(entries);
    } catch (error) {
      this.#doubt = error;
      throw error;
    }
    this.#doubtful.clear();
  }

  async #inTurn(step: () => Promise<void>): Promise<void> {
    this.#steps += 1;
    try {
      await this.#mutex.run(step);
    } finally {
      this.#steps -= 1;
    }
  }
}
