import { isZcowError } from "../../src/base/errors.js";
import type { ZonedLimits } from "../../src/block/block-device.js";
import type { ZonedDevice } from "../../src/block/zoned-device.js";
import { compressibleBytes, type Random, taggedBytes } from "./random.js";
import { equalBytes, isAllZero, SECTOR, type Span } from "./sector-history.js";
import type { ZoneHistory } from "./zone-history.js";

/** Random requests to the sequential zones of a disk, each entered in the history. */

export interface ZonedWorkloadOptions {
  readonly random: Random;
  readonly device: ZonedDevice;
  readonly history: ZoneHistory;
  /** Calls that have reached the storage so far. */
  readonly position: () => number;
  /** Some writes of whole clusters are compressed. */
  readonly compressed?: boolean;
  /** Decides whether a failed request is acceptable; throws when not. Default: only refusals for want of zone resources are. */
  readonly onError?: (error: unknown, what: string) => void;
}

const WEIGHTS = {
  write: 30,
  append: 15,
  "write-many": 8,
  "append-many": 8,
  zeroes: 3,
  reset: 6,
  "reset-many": 2,
  finish: 3,
  open: 3,
  close: 3,
  read: 8,
  flush: 8,
} as const;
type Kind = keyof typeof WEIGHTS;
type AddKind = "write" | "append" | "zeroes";

/** Writes sent to one zone without waiting in between. Once one is refused the others may be. */
interface Burst {
  readonly count: number;
  failed: boolean;
}

/** A write that was acknowledged; `at` counts from the start of the zone. */
interface Added {
  readonly at: number;
  readonly bytes: Uint8Array;
  readonly span: Span;
}

export class ZonedWorkload {
  readonly #o: ZonedWorkloadOptions;
  readonly #limits: ZonedLimits;
  /** The few zones that most requests go to, so that zones fill up. */
  readonly #favourites: number[];
  /** Number of the next write; begins anywhere, so that two workloads on one disk write different bytes. */
  #writes: number;
  /** The last request, for messages. */
  last = "nothing";

  constructor(options: ZonedWorkloadOptions) {
    this.#o = options;
    this.#writes = options.random.below(1 << 24);
    this.#limits = options.device.limits.zoned as ZonedLimits;
    const zones = Array.from({ length: this.#limits.zoneCount }, (_, index) => index);
    const sequential = zones.slice(this.#limits.conventionalZones);
    this.#favourites = options.random.shuffled(sequential).slice(0, 3);
    if (options.random.chance(0.5)) this.#favourites.push(this.#limits.zoneCount - 1);
  }

  async run(steps: number): Promise<void> {
    for (let i = 0; i < steps; i++) await this.step();
  }

  async step(kind: Kind = this.#o.random.weighted(WEIGHTS)): Promise<void> {
    const zone = this.#zone();
    switch (kind) {
      case "write":
      case "append":
      case "zeroes":
        return this.#add(zone, 1, kind);
      case "write-many":
      case "append-many":
        return this.#addToSeveral(zone, kind === "write-many" ? "write" : "append");
      case "reset":
        return this.#reset(zone, zone);
      case "reset-many":
        return this.#reset(zone, Math.min(zone + 1, this.#limits.zoneCount - 1));
      case "finish":
        return this.#finish(zone);
      case "open":
        // A full zone cannot be opened; that refusal has tests of its own.
        if (this.#o.history.pointerOf(zone) === this.#o.history.capacityOf(zone)) return;
        return this.#manage(`open zone ${zone}`, () => this.#o.device.openZones(this.#start(zone), this.#length(zone)));
      case "close":
        return this.#manage(`close zone ${zone}`, () =>
          this.#o.device.closeZones(this.#start(zone), this.#length(zone)),
        );
      case "read":
        return this.verifyZone(zone);
      case "flush":
        return this.flush();
    }
  }

  async flush(): Promise<void> {
    const start = this.#o.position();
    const done = await this.#attempt("flush", () => this.#o.device.flush());
    if (done) this.#o.history.flushed({ start, end: this.#o.position() });
  }

  /** Reads the zone and its line of the report, and compares both with what must be there. */
  async verifyZone(zone: number): Promise<void> {
    const { device, history, random } = this.#o;
    const report = device.report(this.#start(zone), 1)[0];
    const pointer = history.pointerOf(zone);
    const where = `zone ${zone} (seed ${random.seed}, after: ${this.last})`;
    if (report === undefined || report.writePointer - report.start !== pointer) {
      throw new Error(`${where}: pointer is ${report?.writePointer}, expected ${this.#start(zone) + pointer}`);
    }
    const bytes = new Uint8Array(this.#length(zone));
    if (!(await this.#attempt(`read zone ${zone}`, () => device.read(this.#start(zone), bytes)))) return;
    const expected = history.contentsOf(zone).subarray(0, pointer);
    if (!equalBytes(bytes.subarray(0, pointer), expected)) throw new Error(`${where}: wrong bytes below the pointer`);
    if (!isAllZero(bytes.subarray(pointer))) throw new Error(`${where}: bytes past the pointer`);
  }

  async verify(): Promise<void> {
    for (let zone = this.#limits.conventionalZones; zone < this.#limits.zoneCount; zone++) await this.verifyZone(zone);
  }

  async #addToSeveral(zone: number, kind: "write" | "append"): Promise<void> {
    const count = this.#o.random.between(2, 5);
    const other = this.#zone();
    const jobs = [this.#add(zone, count, kind)];
    if (other !== zone) jobs.push(this.#add(other, this.#o.random.between(1, 3), kind));
    await Promise.all(jobs);
  }

  /**
   * Sends `count` writes to one zone without waiting in between. They are entered in the order of the pointer: those that are
   * acknowledged in one turn reach us in any order.
   */
  async #add(zone: number, count: number, kind: AddKind): Promise<void> {
    const { history } = this.#o;
    let at = history.pointerOf(zone);
    const jobs: Promise<Added | undefined>[] = [];
    const burst = { count, failed: false };
    for (let i = 0; i < count; i++) {
      const room = history.capacityOf(zone) - at;
      if (room === 0) break;
      const length = this.#writeLength(room, kind);
      jobs.push(this.#addOne(zone, at, length, kind, burst));
      at += length;
    }
    const added = (await Promise.all(jobs)).filter((one) => one !== undefined);
    for (const one of added.toSorted((a, b) => a.at - b.at)) history.wrote(zone, one.at, one.bytes, one.span);
  }

  async #addOne(zone: number, at: number, length: number, kind: AddKind, burst: Burst): Promise<Added | undefined> {
    const { device, position, random } = this.#o;
    const fua = burst.count === 1 && random.chance(0.04);
    const offset = this.#start(zone) + at;
    const compressed = kind === "write" && !fua && this.#mayCompress(offset, length);
    const tagged = compressed ? compressibleBytes : taggedBytes;
    const bytes = kind === "zeroes" ? new Uint8Array(length) : tagged(this.#writes++, offset, length);
    const start = position();
    let got = offset;
    const act = async (): Promise<void> => {
      if (kind === "append") got = await device.append(this.#start(zone), bytes, { fua });
      else if (kind === "zeroes") await device.writeZeroes(offset, length, { fua });
      else if (compressed) await device.writeCompressed(offset, bytes);
      else await device.write(offset, bytes, { fua });
    };
    const done = await this.#attempt(`${kind} ${length} to zone ${zone} at +${at}${fua ? " fua" : ""}`, act, burst);
    // Appends after a refused one may land lower than planned; the bytes are tagged with the planned place.
    if (done) return { at: got - this.#start(zone), bytes, span: { start, end: position(), fua } };
    // The write went through but the flush behind it failed: it is written, not durable.
    const written = fua && this.#pointer(zone) === at + length;
    return written ? { at, bytes, span: { start, end: Number.POSITIVE_INFINITY } } : undefined;
  }

  #mayCompress(offset: number, length: number): boolean {
    const { device, random, compressed } = this.#o;
    const clusterSize = device.limits.optimalAlignment;
    return compressed === true && offset % clusterSize === 0 && length % clusterSize === 0 && random.chance(0.6);
  }

  async #reset(first: number, last: number): Promise<void> {
    const { device, history, position } = this.#o;
    const from = this.#start(first);
    const length = this.#start(last) + this.#length(last) - from;
    const start = position();
    const done = await this.#attempt(`reset zones ${first}..${last}`, () => device.resetZones(from, length));
    for (let zone = first; zone <= last; zone++) {
      if (zone < this.#limits.conventionalZones) continue;
      if (done) history.reset(zone, { start, end: position() });
      else history.resetFailed(zone, { start, end: position() }, this.#pointer(zone));
    }
  }

  async #finish(zone: number): Promise<void> {
    const { device, history, position } = this.#o;
    const start = position();
    const done = await this.#attempt(`finish zone ${zone}`, () =>
      device.finishZones(this.#start(zone), this.#length(zone)),
    );
    if (done) history.finished(zone, { start, end: position() });
    else history.finishFailed(zone, { start, end: position() }, this.#pointer(zone));
  }

  async #manage(what: string, act: () => Promise<void>): Promise<void> {
    await this.#attempt(what, act);
  }

  #pointer(zone: number): number {
    return (this.#o.device.report(this.#start(zone), 1)[0]?.writePointer ?? -1) - this.#start(zone);
  }

  async #attempt(what: string, act: () => unknown, burst?: Burst): Promise<boolean> {
    try {
      await act();
      this.last = what;
      return true;
    } catch (error) {
      const follows = burst?.failed === true;
      if (burst !== undefined) burst.failed = true;
      if (isZcowError(error, "ZONE_TOO_MANY_ACTIVE") || isZcowError(error, "ZONE_TOO_MANY_OPEN")) return false;
      if (follows && (isZcowError(error, "ZONE_INVALID_WRITE") || isZcowError(error, "ZONE_ABORTED"))) return false;
      if (this.#o.onError === undefined) {
        throw new Error(`${what} failed (seed ${this.#o.random.seed}, before it: ${this.last})`, { cause: error });
      }
      this.#o.onError(error, what);
      return false;
    }
  }

  #zone(): number {
    const { random } = this.#o;
    if (random.chance(0.85)) return random.pick(this.#favourites);
    return random.between(this.#limits.conventionalZones, this.#limits.zoneCount - 1);
  }

  #writeLength(room: number, kind: string): number {
    const { random } = this.#o;
    const capacity = this.#limits.zoneCapacity;
    const wanted = random.pick([SECTOR, SECTOR * 3, capacity / 8, capacity / 4, random.between(1, capacity)]);
    const most = kind === "append" ? Math.min(room, this.#limits.maxAppendBytes) : room;
    return Math.min(most, Math.max(SECTOR, Math.floor(wanted / SECTOR) * SECTOR));
  }

  #start(zone: number): number {
    return zone * this.#limits.zoneSize;
  }

  #length(zone: number): number {
    return Math.min(this.#limits.zoneSize, this.#o.device.size - this.#start(zone));
  }
}
