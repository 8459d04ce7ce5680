import { isZcowError } from "../../src/base/errors.js";
import type { BlockDevice } from "../../src/block/block-device.js";
import { compressibleBytes, type Random, taggedBytes } from "./random.js";
import { type DiskRecord, equalBytes, isAllZero, SECTOR } from "./sector-history.js";

/** Random requests to a disk, each entered in the history with the storage positions it spans. */

export interface WorkloadOptions {
  readonly random: Random;
  readonly device: BlockDevice;
  readonly history: DiskRecord;
  /** Calls that have reached the storage so far. */
  readonly position: () => number;
  readonly clusterSize: number;
  /** Requests may start and end inside a sector, where the disk allows it. */
  readonly unaligned?: boolean;
  /** Some writes are compressed. */
  readonly compressed?: boolean;
  /** Requests stay inside [from, to). Default: the whole disk. */
  readonly from?: number;
  readonly to?: number;
  /** Decides whether a failed request is acceptable; throws when not. Default: no request may fail. */
  readonly onError?: (error: unknown, what: string) => void;
}

interface Range {
  readonly offset: number;
  readonly length: number;
}

const WEIGHTS = { write: 50, zeroes: 10, discard: 10, read: 12, flush: 10, batch: 8 } as const;
type Kind = keyof typeof WEIGHTS | "compressed";

export class PlainWorkload {
  readonly #o: WorkloadOptions;
  readonly #from: number;
  readonly #to: number;
  /** Number of the next write; begins anywhere, so that two workloads on one disk write different bytes. */
  #writes: number;
  /** The last request, for messages. */
  last = "nothing";

  constructor(options: WorkloadOptions) {
    this.#o = options;
    this.#writes = options.random.below(1 << 24);
    this.#from = options.from ?? 0;
    this.#to = options.to ?? options.device.size;
  }

  async run(steps: number): Promise<void> {
    for (let i = 0; i < steps; i++) await this.step();
  }

  async step(kind: Kind = this.#randomKind()): Promise<void> {
    if (kind === "batch") return this.#batch();
    if (kind === "compressed") return this.#compressed();
    if (kind === "flush") return this.flush();
    return this.#request(kind, this.#range());
  }

  #randomKind(): Kind {
    const { random, compressed } = this.#o;
    return random.weighted<Kind>(compressed === true ? { ...WEIGHTS, compressed: 40 } : { ...WEIGHTS, compressed: 0 });
  }

  async flush(): Promise<void> {
    const start = this.#o.position();
    const done = await this.#attempt("flush", () => this.#o.device.flush());
    if (done) this.#o.history.flushed({ start, end: this.#o.position() });
  }

  /** Reads the whole area and compares it with what must be there. */
  async verify(): Promise<void> {
    await this.#read({ offset: this.#from, length: this.#to - this.#from });
  }

  #request(kind: Exclude<Kind, "batch" | "flush" | "compressed">, range: Range): Promise<void> {
    if (kind === "write") return this.#write(range);
    if (kind === "zeroes") return this.#zeroes(range);
    if (kind === "discard") return this.#discard(range);
    return this.#read(range);
  }

  /** Several requests at once, on sectors of their own but often in one cluster. */
  async #batch(): Promise<void> {
    const { random } = this.#o;
    const pieces = random.between(2, 6);
    const whole = this.#range(random.between(pieces, pieces * 6) * SECTOR * 2);
    const first = Math.ceil(whole.offset / SECTOR);
    const sectors = Math.floor((whole.offset + whole.length) / SECTOR) - first;
    const each = Math.floor(sectors / pieces);
    if (each === 0) return;
    const jobs: Promise<void>[] = [];
    for (const i of random.shuffled(Array.from({ length: pieces }, (_, index) => index))) {
      const range = { offset: (first + i * each) * SECTOR, length: random.between(1, each) * SECTOR };
      jobs.push(this.#request(random.weighted({ write: 8, zeroes: 1, discard: 1, read: 1 }), range));
    }
    if (random.chance(0.3)) jobs.push(this.flush());
    await Promise.all(jobs);
  }

  async #write(range: Range): Promise<void> {
    const { device, history, position, random } = this.#o;
    const bytes = taggedBytes(this.#writes++, range.offset, range.length);
    const fua = random.chance(0.03);
    const start = position();
    const what = `write ${range.offset}+${range.length}${fua ? " fua" : ""}`;
    const done = await this.#attempt(what, () => device.write(range.offset, bytes, { fua }));
    history.changed(range.offset, bytes, { start, end: done ? position() : Number.POSITIVE_INFINITY, fua });
  }

  /** Whole clusters, often emptied before: where one holds data the write ends, and the disk itself tells how far it came. */
  async #compressed(): Promise<void> {
    const { device, history, position, random, clusterSize } = this.#o;
    const first = Math.ceil(this.#from / clusterSize);
    const offset = random.between(first, Math.max(first, Math.ceil(this.#to / clusterSize) - 1)) * clusterSize;
    const length = Math.min(random.between(1, 4) * clusterSize, this.#to - offset);
    if (length <= 0 || (length % clusterSize !== 0 && offset + length !== device.size)) return;
    if (random.chance(0.6)) await this.#discard({ offset, length });
    const tagged = random.chance(0.8) ? compressibleBytes : taggedBytes;
    const bytes = tagged(this.#writes++, offset, length);
    const before = history.live.slice(offset, offset + length);
    const start = position();
    let refused = false;
    const act = async (): Promise<void> => {
      try {
        await device.writeCompressed(offset, bytes);
      } catch (error) {
        if (!isZcowError(error, "COMPRESSED_REWRITE")) throw error;
        refused = true;
      }
    };
    const done = await this.#attempt(`write compressed ${offset}+${length}`, act);
    history.changed(offset, bytes, { start, end: done && !refused ? position() : Number.POSITIVE_INFINITY });
    if (!refused) return;
    const after = new Uint8Array(length);
    if (!(await this.#attempt(`read ${offset}+${length}`, () => device.read(offset, after)))) return;
    for (let at = 0; at < length; at += SECTOR) {
      const now = after.subarray(at, at + SECTOR);
      const known = [before, bytes].some((one) => equalBytes(one.subarray(at, at + SECTOR), now));
      if (!known) this.#expectLive(offset + at, now, "after a compressed write that was refused");
    }
    history.changed(offset, after, { start, end: position() });
  }

  async #zeroes(range: Range): Promise<void> {
    const { device, history, position, random } = this.#o;
    const unmap = random.chance(0.5);
    const start = position();
    const what = `write zeroes ${range.offset}+${range.length}${unmap ? " unmap" : ""}`;
    const done = await this.#attempt(what, () => device.writeZeroes(range.offset, range.length, { unmap }));
    history.zeroed(range.offset, range.length, { start, end: done ? position() : Number.POSITIVE_INFINITY });
  }

  /** A discard is a hint, so the disk itself tells what it did; each sector is as before or zeros. */
  async #discard(range: Range): Promise<void> {
    const { device, history, position } = this.#o;
    const offset = Math.ceil(range.offset / SECTOR) * SECTOR;
    const length = Math.floor((range.offset + range.length - offset) / SECTOR) * SECTOR;
    if (length <= 0) return;
    const start = position();
    const done = await this.#attempt(`discard ${offset}+${length}`, () => device.discard(offset, length));
    const after = new Uint8Array(length);
    const seen = done && (await this.#attempt(`read ${offset}+${length}`, () => device.read(offset, after)));
    const end = seen ? position() : Number.POSITIVE_INFINITY;
    if (!seen) {
      // Unknown which sectors it reached: each may be zeros, and the old bytes are as good as before.
      const before = history.live.slice(offset, offset + length);
      history.zeroed(offset, length, { start, end });
      history.changed(offset, before, { start, end });
      return;
    }
    for (let at = 0; at < length; at += SECTOR) {
      const now = after.subarray(at, at + SECTOR);
      if (isAllZero(now)) history.zeroed(offset + at, SECTOR, { start, end });
      else this.#expectLive(offset + at, now, "after a discard");
    }
  }

  async #read(range: Range): Promise<void> {
    const bytes = new Uint8Array(range.length);
    const what = `read ${range.offset}+${range.length}`;
    if (await this.#attempt(what, () => this.#o.device.read(range.offset, bytes))) {
      this.#expectLive(range.offset, bytes, what);
    }
  }

  #expectLive(offset: number, bytes: Uint8Array, what: string): void {
    const expected = this.#o.history.live.subarray(offset, offset + bytes.length);
    if (equalBytes(expected, bytes)) return;
    for (let sector = Math.floor(offset / SECTOR); sector * SECTOR < offset + bytes.length; sector++) {
      const from = Math.max(sector * SECTOR, offset);
      const to = Math.min((sector + 1) * SECTOR, offset + bytes.length);
      if (!this.#o.history.mayShow(sector, from - sector * SECTOR, bytes.subarray(from - offset, to - offset))) {
        throw new Error(`${what}: wrong bytes at ${from} (seed ${this.#o.random.seed}, before it: ${this.last})`);
      }
    }
  }

  async #attempt(what: string, act: () => unknown): Promise<boolean> {
    try {
      await act();
      this.last = what;
      return true;
    } catch (error) {
      if (this.#o.onError === undefined) {
        throw new Error(`${what} failed (seed ${this.#o.random.seed}, before it: ${this.last})`, { cause: error });
      }
      this.#o.onError(error, what);
      return false;
    }
  }

  #range(preferred?: number): Range {
    const { random, clusterSize, device } = this.#o;
    const unaligned = this.#o.unaligned === true && device.limits.requestAlignment === 1;
    const room = this.#to - this.#from;
    const large = Math.min(clusterSize, 128 * 1024);
    const sizes = [SECTOR, large / 2, large, large * 3, SECTOR * 9];
    const around = Math.max(SECTOR, preferred ?? random.pick(sizes));
    const unit = unaligned && random.chance(0.4) ? 1 : random.chance(0.3) ? clusterSize : SECTOR;
    const whole = Math.max(1, Math.floor(room / unit));
    const offset = this.#from + random.below(whole) * unit;
    const length = Math.max(1, random.between(1, Math.ceil((around * 2) / unit))) * unit;
    return { offset, length: Math.min(length, this.#to - offset) };
  }
}
