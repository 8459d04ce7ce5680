import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isZcowError } from "../../src/base/errors.js";
import { type ZoneIndex, zoneIndex } from "../../src/base/units.js";
import { validateZoneConfig } from "../../src/zoned/zone-config.js";
import type { ZoneWrite } from "../../src/zoned/zone-flight.js";
import { ZoneModel } from "../../src/zoned/zone-model.js";
import { applyPlan, planAll, planRange, type ZoneOperation, zonesOfRange } from "../../src/zoned/zone-operations.js";
import { readRuns } from "../../src/zoned/zone-reads.js";
import { type SimpleOptions, type SimpleWrite, SimpleZoneModel } from "../support/simple-zone-model.js";

const SECTOR = 512;
const ZONE = 16 * SECTOR;

/** A write in flight in both models. */
interface Pair {
  readonly real: ZoneWrite;
  readonly simple: SimpleWrite;
}

/** What the callers of the real model were told, by write. */
type Answers = Map<SimpleWrite, SimpleWrite["answer"]>;

type Command =
  | { readonly kind: "write"; readonly zone: number; readonly shift: number; readonly sectors: number }
  | { readonly kind: "append"; readonly zone: number; readonly sectors: number; readonly sync: boolean }
  | { readonly kind: "end"; readonly pick: number; readonly good: boolean }
  | { readonly kind: "manage"; readonly operation: ZoneOperation; readonly zone: number; readonly count: number }
  | { readonly kind: "all"; readonly operation: ZoneOperation }
  | { readonly kind: "force"; readonly zone: number; readonly state: "read-only" | "offline" | "online" }
  | { readonly kind: "reopen" };

const OPERATIONS = ["open", "close", "finish", "reset"] as const;

/** Mostly the same three sequential zones, so that they meet. */
const zone = fc.oneof(
  { weight: 3, arbitrary: fc.integer({ min: 2, max: 4 }) },
  { weight: 1, arbitrary: fc.nat({ max: 6 }) },
);
/** Mostly short writes; some that fill a zone. */
const sectors = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: 1, max: 3 }) },
  { weight: 1, arbitrary: fc.integer({ min: 4, max: 16 }) },
);
const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant("write" as const),
      zone,
      shift: fc.oneof(
        { weight: 9, arbitrary: fc.constant(0) },
        { weight: 1, arbitrary: fc.integer({ min: -2, max: 2 }) },
      ),
      sectors,
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant("append" as const),
      zone,
      sectors,
      sync: fc.boolean(),
    }),
  },
  {
    weight: 9,
    arbitrary: fc.record({
      kind: fc.constant("end" as const),
      pick: fc.nat(),
      good: fc.oneof({ weight: 5, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.constant(false) }),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant("manage" as const),
      operation: fc.constantFrom(...OPERATIONS),
      zone,
      count: fc.oneof({ weight: 4, arbitrary: fc.constant(1) }, { weight: 1, arbitrary: fc.nat({ max: 7 }) }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("all" as const), operation: fc.constantFrom(...OPERATIONS) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant("force" as const),
      zone,
      state: fc.constantFrom("read-only" as const, "offline" as const, "online" as const),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("reopen" as const) }) },
);

const options: fc.Arbitrary<SimpleOptions> = fc.record({
  diskSize: fc.integer({ min: 5 * ZONE + SECTOR, max: 7 * ZONE }).map((size) => size - (size % SECTOR)),
  zoneSize: fc.constant(ZONE),
  capacity: fc.integer({ min: 5, max: 16 }).map((sectors) => sectors * SECTOR),
  conventional: fc.nat({ max: 3 }),
  maxActive: fc.nat({ max: 4 }),
  maxOpen: fc.nat({ max: 4 }),
  maxAppend: fc.constant(0),
});

/** Drives both models and compares all that can be seen after each step. */
class Run {
  real: ZoneModel;
  readonly simple: SimpleZoneModel;
  readonly #options: SimpleOptions;
  #flying: Pair[] = [];
  readonly #answers: Answers = new Map();
  /** What a table written at each flush would hold. */
  readonly #durable = new Map<ZoneIndex, number>();

  constructor(wanted: SimpleOptions) {
    const { config } = validateZoneConfig(
      {
        zoneSize: wanted.zoneSize,
        zoneCapacity: wanted.capacity,
        conventionalZones: wanted.conventional,
        maxActiveZones: wanted.maxActive,
        maxOpenZones: wanted.maxOpen,
      },
      wanted.diskSize,
      SECTOR,
    );
    this.#options = {
      ...wanted,
      maxActive: config.maxActiveZones,
      maxOpen: config.maxOpenZones,
      maxAppend: wanted.capacity,
    };
    this.simple = new SimpleZoneModel(this.#options);
    this.real = new ZoneModel(config, wanted.diskSize);
  }

  async step(step: Command): Promise<void> {
    const zones = this.simple.zones.length;
    switch (step.kind) {
      case "write": {
        const target = this.simple.zones[step.zone % zones];
        if (target === undefined) return;
        const offset = Math.max(0, target.pointer + step.shift * SECTOR);
        if (offset >= this.#options.diskSize) return;
        this.#submit(
          () => this.real.submitWrite(offset, step.sectors * SECTOR),
          () => this.simple.write(offset, step.sectors * SECTOR),
        );
        break;
      }
      case "append": {
        const start = (step.zone % zones) * ZONE;
        const length = step.sectors * SECTOR;
        const pair = this.#submit(
          () => this.real.submitAppend(start, length),
          () => this.simple.append(start, length),
        );
        if (pair !== undefined && step.sync) await this.#end(pair, true);
        break;
      }
      case "end": {
        const pair = this.#flying[step.pick % Math.max(this.#flying.length, 1)];
        if (pair !== undefined) await this.#end(pair, step.good);
        break;
      }
      case "manage":
        this.#manage(step.operation, step.zone % zones, step.count);
        break;
      case "all":
        if (this.#flying.length > 0) return;
        this.#both(
          () => applyPlan(this.real, planAll(this.real, step.operation)),
          () => this.simple.manageAll(step.operation),
        );
        break;
      case "force":
        this.#force(step.zone % zones, step.state);
        break;
      case "reopen":
        this.#reopen();
        break;
    }
    this.compare();
  }

  async drain(): Promise<void> {
    while (this.#flying.length > 0) {
      const pair = this.#flying[this.#flying.length >> 1];
      if (pair !== undefined) await this.#end(pair, true);
      this.compare();
    }
  }

  #submit(real: () => ZoneWrite | undefined, simple: () => SimpleWrite | string): Pair | undefined {
    const expected = simple();
    const got = outcome(real);
    if (typeof expected === "string") {
      expect(got === undefined ? "ok" : got).toBe(expected);
      return undefined;
    }
    if (typeof got !== "object") throw new Error(`refused with ${String(got)}, expected a ticket`);
    expect({ offset: got.offset, length: got.length }).toEqual({ offset: expected.offset, length: expected.length });
    const pair = { real: got, simple: expected };
    this.#flying.push(pair);
    return pair;
  }

  async #end(pair: Pair, good: boolean): Promise<void> {
    this.#flying = this.#flying.filter((other) => other !== pair);
    const { simple, real } = pair;
    this.simple.end(simple, good);
    const cause = new Error("I/O failed");
    if (good) {
      this.#listen(simple, () => this.real.complete(real));
    } else {
      const error = this.real.fail(real, cause);
      this.#answers.set(simple, error === cause ? "failed" : "aborted");
    }
    await new Promise((resolve) => setImmediate(resolve));
    for (const [write, answer] of this.#answers) expect(answer).toBe(write.answer);
    expect(this.#answers.get(simple) ?? "none").toBe(simple.answer);
  }

  #listen(write: SimpleWrite, complete: () => void | Promise<void>): void {
    const refused = (error: unknown): void => {
      if (!isZcowError(error, "ZONE_ABORTED")) throw error;
      this.#answers.set(write, "aborted");
    };
    try {
      const wait = complete();
      if (wait === undefined) this.#answers.set(write, "acknowledged");
      else wait.then(() => this.#answers.set(write, "acknowledged"), refused);
    } catch (error) {
      refused(error);
    }
  }

  #manage(operation: ZoneOperation, first: number, count: number): void {
    const offset = first * ZONE;
    const length = Math.min(count * ZONE, this.#options.diskSize - offset);
    if (this.simple.zonesIn(offset, length).some((z) => this.simple.busy(z))) return;
    this.#both(
      () => applyPlan(this.real, planRange(this.real, operation, zonesOfRange(this.real, operation, offset, length))),
      () => this.simple.manage(operation, offset, length),
    );
  }

  #force(index: number, state: "read-only" | "offline" | "online"): void {
    const target = this.simple.zones[index];
    if (target === undefined || this.simple.busy(target)) return;
    this.#both(
      () => this.real.force(zoneIndex(index), state),
      () => this.simple.force(index * ZONE, state),
    );
  }

  #both(real: () => void, simple: () => string): void {
    const expected = simple();
    expect(outcome(real) ?? "ok").toBe(expected);
  }

  /** Writes the table and opens the disk again from it. */
  #reopen(): void {
    if (this.#flying.length > 0) return;
    this.#flush();
    const { maxActive, maxOpen } = this.#options;
    const config = {
      zoneSize: ZONE,
      zoneCapacity: this.#options.capacity,
      zoneCount: this.simple.zones.length,
      conventionalZones: this.#options.conventional,
      maxActiveZones: maxActive,
      maxOpenZones: maxOpen,
      maxAppendBytes: undefined,
    };
    const pointers = this.simple.zones.map((z, i) => this.#durable.get(zoneIndex(i)) ?? z.start);
    this.real = new ZoneModel(config, this.#options.diskSize, pointers);
    this.simple.reopen();
  }

  #flush(): void {
    for (const dirty of this.real.takeDirty()) this.#durable.set(dirty, this.real.committedPointer(dirty));
  }

  compare(): void {
    const { real, simple } = this;
    const seen = real
      .report()
      .map((z) => ({ start: z.start, size: z.length, pointer: z.writePointer, state: z.state }));
    const expected = simple.zones.map((z) => ({ start: z.start, size: z.size, pointer: z.pointer, state: z.state }));
    expect(seen).toEqual(expected);
    expect(real.resources.open).toBe(simple.open());
    expect(real.resources.active).toBe(simple.active());
    simple.zones.forEach((z, i) => {
      if (z.conventional) return;
      expect(real.committedPointer(zoneIndex(i))).toBe(simple.committed(z));
      expect(real.isBusy(zoneIndex(i), zoneIndex(i))).toBe(simple.busy(z));
    });
    this.#flush();
    simple.zones.forEach((z, i) => {
      if (!z.conventional) expect(this.#durable.get(zoneIndex(i)) ?? z.start).toBe(simple.committed(z));
    });
    expect(this.#readable()).toEqual(this.#expectedReadable());
  }

  /** Sectors that read as data. */
  #readable(): number[] {
    const sectors: number[] = [];
    for (const run of readRuns(this.real, 0, this.#options.diskSize)) {
      for (let at = run.offset; run.data && at < run.offset + run.length; at += SECTOR) sectors.push(at);
    }
    return sectors;
  }

  #expectedReadable(): number[] {
    const sectors: number[] = [];
    for (let at = 0; at < this.#options.diskSize; at += SECTOR) {
      const z = this.simple.zoneAt(at);
      if (z.conventional || at < this.simple.committed(z)) sectors.push(at);
    }
    return sectors;
  }
}

function outcome<T>(action: () => T): T | string {
  try {
    return action();
  } catch (error) {
    if (isZcowError(error)) return error.code;
    throw error;
  }
}

describe("the zone model agrees with a naive one", () => {
  it("over long random runs with writes in flight that end in any order and fail", async () => {
    await fc.assert(
      fc.asyncProperty(
        options,
        fc.array(command, { minLength: 20, maxLength: 200, size: "max" }),
        async (wanted, commands) => {
          const run = new Run(wanted);
          for (const step of commands) await run.step(step);
          await run.drain();
        },
      ),
      { numRuns: 150 },
    );
  }, 60_000);
});
