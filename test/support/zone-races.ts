import { isZcowError } from "../../src/base/errors.js";
import type { ZonedDevice } from "../../src/block/zoned-device.js";
import { type Random, taggedBytes } from "./random.js";
import { SECTOR } from "./sector-history.js";

/**
 * Appends, resets, finishes and flushes sent to a few zones without waiting for one another, and what each of them promised.
 *
 * Requests for one zone take effect in the order in which they are sent, so the zone's life is counted in epochs: a reset
 * begins the next one, and an append belongs to the epoch in which it was sent.
 */

interface Append {
  readonly zone: number;
  readonly epoch: number;
  readonly offset: number;
  readonly bytes: Uint8Array;
  /** Place of its acknowledgement in the order of events. */
  readonly event: number;
}

/** A write that was sent, whatever came of it. */
interface Write {
  readonly zone: number;
  readonly epoch: number;
  readonly number: number;
  failed: boolean;
}

/** A promise about the epoch of a zone that held from a moment on, as the recorder counts moments. */
interface Milestone {
  readonly zone: number;
  readonly epoch: number;
  readonly moment: number;
}

export interface ZoneRaceOptions {
  readonly device: ZonedDevice;
  readonly random: Random;
  readonly moment: () => number;
}

const REFUSALS = ["ZONE_FULL", "ZONE_BOUNDARY", "ZONE_ABORTED", "IO_ERROR"] as const;

/** In place of an epoch: zeros, and bytes that nobody wrote to the zone. */
const GAP = -1;
const FOREIGN = -2;

export class ZoneRaces {
  readonly #o: ZoneRaceOptions;
  readonly #zoneSize: number;
  readonly #zoneCount: number;
  readonly #epochs: number[];
  readonly #running: Promise<void>[] = [];
  readonly #appends: Append[] = [];
  /** For every write that was ever sent: where it may show. */
  readonly #sent: Write[] = [];
  /** Zones in which a write has just failed: what it stored lies behind the pointer. */
  #spoilt: number[] = [];
  readonly #flushes: { readonly event: number; readonly moment: number }[] = [];
  readonly #resetsSent: Milestone[] = [];
  readonly #resetsDone: Milestone[] = [];
  readonly #finishesSent: Milestone[] = [];
  readonly #finishes: Milestone[] = [];
  #events = 0;

  constructor(options: ZoneRaceOptions) {
    this.#o = options;
    this.#zoneSize = options.device.limits.zoned?.zoneSize ?? 0;
    this.#zoneCount = options.device.limits.zoned?.zoneCount ?? 0;
    this.#epochs = new Array<number>(this.#zoneCount).fill(0);
  }

  /** Sends `count` requests; resolves when all have ended. Throws for a failure that no fault explains. */
  async run(count: number): Promise<void> {
    const { random } = this.#o;
    for (let i = 0; i < count; i++) {
      const spoilt = this.#spoilt.pop();
      if (spoilt !== undefined && random.chance(0.5)) this.#finish(spoilt);
      const zone = random.below(this.#zoneCount);
      const kind = random.weighted({ append: 60, reset: 10, finish: 5, flush: 15 });
      if (kind === "append") this.#append(zone);
      else if (kind === "reset") this.#reset(zone);
      else if (kind === "finish") this.#finish(zone);
      else this.#flush();
      if (random.chance(0.3)) await new Promise((resolve) => setImmediate(resolve));
      if (random.chance(0.05)) await Promise.all(this.#running);
    }
    await Promise.all(this.#running);
  }

  /** What is wrong with the disk that a power cut at `moment` left. */
  async judge(disk: ZonedDevice, moment: number): Promise<string[]> {
    const problems: string[] = [];
    for (const { index, start, length, capacity, writePointer } of disk.report()) {
      const bytes = new Uint8Array(length);
      await disk.read(start, bytes);
      const written = writePointer - start;
      if (bytes.subarray(written).some((byte) => byte !== 0)) problems.push(`zone ${index}: data past its pointer`);
      const oldest = latest(this.#resetsDone, index, moment);
      const newest = latest(this.#resetsSent, index, moment - 1);
      // Only a finish moves the pointer over what was not written.
      const mayHaveGaps = this.#finishesSent.some((one) => one.zone === index && one.epoch >= oldest);
      for (let at = 0; at < written; at += SECTOR) {
        const writer = this.#writerOf(index, bytes.subarray(at, at + SECTOR));
        const epoch = writer === GAP || writer === FOREIGN ? writer : writer.epoch;
        if (writer !== GAP && writer !== FOREIGN && writer.failed) {
          problems.push(`zone ${index} at +${at}: data of a write that failed`);
        }
        if (epoch === GAP && !mayHaveGaps) problems.push(`zone ${index} at +${at}: nothing below the pointer`);
        else if (epoch === FOREIGN) problems.push(`zone ${index} at +${at}: foreign data`);
        else if (epoch !== GAP && epoch < oldest) problems.push(`zone ${index} at +${at}: data from before a reset`);
      }
      const finished = this.#finishes.some((one) => one.zone === index && one.moment <= moment && one.epoch >= newest);
      if (finished && written !== capacity) problems.push(`zone ${index}: a finish that returned is gone`);
      problems.push(...this.#missing(index, newest, moment, bytes, start));
    }
    return problems;
  }

  /** Appends that a flush made durable, in an epoch that no reset can have ended. */
  #missing(zone: number, newest: number, moment: number, bytes: Uint8Array, start: number): string[] {
    const flushed = Math.max(-1, ...this.#flushes.filter((one) => one.moment <= moment).map((one) => one.event));
    const due = this.#appends.filter((one) => one.zone === zone && one.epoch >= newest && one.event < flushed);
    return due
      .filter((one) => one.bytes.some((byte, i) => bytes[one.offset - start + i] !== byte))
      .map((one) => `zone ${zone} at +${one.offset - start}: ${one.bytes.length} flushed bytes are gone`);
  }

  /** The write that a sector is from. */
  #writerOf(zone: number, sector: Uint8Array): Write | typeof GAP | typeof FOREIGN {
    if (sector.every((byte) => byte === 0)) return GAP;
    return this.#sent.findLast((one) => one.zone === zone && isFrom(sector, one.number)) ?? FOREIGN;
  }

  #append(zone: number): void {
    const { device, random } = this.#o;
    const epoch = this.#epochs[zone] ?? 0;
    const number = this.#sent.length;
    // Where it lands is not known yet, so each sector is tagged by its number alone.
    const bytes = taggedSectors(number, random.between(1, 12));
    const write: Write = { zone, epoch, number, failed: false };
    this.#sent.push(write);
    this.#start(async () => {
      const offset = await this.#noteFailure(write, async () => device.append(zone * this.#zoneSize, bytes));
      this.#appends.push({ zone, epoch, offset, bytes, event: this.#events++ });
    });
  }

  async #noteFailure(write: Write, append: () => Promise<number>): Promise<number> {
    try {
      return await append();
    } catch (error) {
      write.failed = true;
      if (isZcowError(error, "IO_ERROR")) this.#spoilt.push(write.zone);
      throw error;
    }
  }

  #reset(zone: number): void {
    const epoch = (this.#epochs[zone] ?? 0) + 1;
    this.#epochs[zone] = epoch;
    this.#resetsSent.push({ zone, epoch, moment: this.#o.moment() });
    this.#start(async () => {
      await this.#o.device.resetZones(zone * this.#zoneSize, this.#zoneSize);
      this.#resetsDone.push({ zone, epoch, moment: this.#o.moment() });
    });
  }

  #finish(zone: number): void {
    const epoch = this.#epochs[zone] ?? 0;
    this.#finishesSent.push({ zone, epoch, moment: this.#o.moment() });
    this.#start(async () => {
      await this.#o.device.finishZones(zone * this.#zoneSize, this.#zoneSize);
      this.#finishes.push({ zone, epoch, moment: this.#o.moment() });
    });
  }

  #flush(): void {
    const event = this.#events++;
    this.#start(async () => {
      await this.#o.device.flush();
      this.#flushes.push({ event, moment: this.#o.moment() });
    });
  }

  /** Sends a request in this turn. */
  #start(request: () => Promise<void>): void {
    const ignored = (error: unknown): void => {
      if (!REFUSALS.some((code) => isZcowError(error, code))) throw error;
    };
    this.#running.push(request().catch(ignored));
  }
}

function latest(milestones: readonly Milestone[], zone: number, moment: number): number {
  return Math.max(0, ...milestones.filter((one) => one.zone === zone && one.moment <= moment).map((one) => one.epoch));
}

function taggedSectors(number: number, sectors: number): Uint8Array {
  const bytes = new Uint8Array(sectors * SECTOR);
  const sector = taggedBytes(number, 0, SECTOR);
  for (let at = 0; at < bytes.length; at += SECTOR) bytes.set(sector, at);
  return bytes;
}

function isFrom(sector: Uint8Array, number: number): boolean {
  const expected = taggedBytes(number, 0, 8);
  return expected.every((byte, i) => sector[i] === byte);
}
