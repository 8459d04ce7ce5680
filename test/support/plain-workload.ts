import { isZcowError } from "../../src/base/errors.js";
import type { BlockDevice } from "../../src/block/block-device.js";
import type { Storage } from "../../src/storage/storage.js";
import { type FilledPart, fillRandomly } from "./disk-fills.js";
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
  /** Where the disk is stored: some of it is filled by who writes there by himself. */
  readonly filled?: Storage | undefined;
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
type Kind = keyof typeof WEIGHTS | "compressed" | "fills";

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
    if (kind === "fills") return this.#fills();
    if (kind === "flush") return this.flush();
    return this.#request(kind, this.#range());
  }

  #randomKind(): Kind {
    const { random, compressed, filled } = this.#o;
    return random.weighted<Kind>({
      ...WEIGHTS,
      compressed: compressed === true ? 40 : 0,
      fills: filled === undefined ? 0 : 60,
    });
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

  #request(kind: Exclude<Kind, "batch" | "flush" | "compressed" | "fills">, range: Range): Promise<void> {
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

  /** One or two fills, and other requests meanwhile, all of them on clusters of their own. */
  async #fills(): Promise<void> {
    const { random, clusterSize } = this.#o;
    const first = Math.ceil(this.#from / clusterSize);
    const count = Math.floor(this.#to / clusterSize) - first;
    const jobs: Promise<void>[] = [];
    for (let at = random.below(Math.max(1, count - 8)); at < count && jobs.length < 4; ) {
      const clusters = Math.min(random.between(1, 10), count - at);
      const range = { offset: (first + at) * clusterSize, length: clusters * clusterSize };
      at += clusters;
      if (random.chance(0.6)) {
        if (random.chance(0.6)) await this.#discard(range);
        jobs.push(this.#fill(range));
      } else jobs.push(this.#request(random.weighted({ write: 6, zeroes: 1, discard: 2, read: 1 }), range));
    }
    if (random.chance(0.3)) jobs.push(this.flush());
    await Promise.all(jobs);
  }

  /** In one part, or in two with a cluster between them that is left alone. */
  async #fill({ offset, length }: Range): Promise<void> {
    const { device, history, position, random, clusterSize, filled } = this.#o;
    if (device.filler === undefined || filled === undefined) throw new Error("this disk cannot be filled");
    const clusters = length / clusterSize;
    const gap = clusters > 2 && random.chance(0.4) ? random.between(1, clusters - 2) * clusterSize : length;
    const parts = [this.#partToFill(offset, gap)];
    const behind = gap + clusterSize;
    if (behind < length) parts.push(this.#partToFill(offset + behind, length - behind));
    const filling = { filler: device.filler, storage: filled, unit: clusterSize, random };
    const start = position();
    const what = `fill ${parts.map((part) => `${part.offset}+${part.bytes.length}`).join(" and ")}`;
    let isFilled = false;
    const fill = this.#attempt(what, async () => {
      isFilled = await fillRandomly(filling, parts).catch((error: unknown) => {
        // The disk has nothing to do with it.
        if (error instanceof Error && error.message === "the thread is gone") return false;
        throw error;
      });
    });
    const reads = random.chance(0.3) ? parts.map((part) => this.#readWhileFilled(part)) : [];
    const done = await fill;
    await Promise.all(reads);
    if (done && !isFilled) {
      for (const part of parts) await this.#read({ offset: part.offset, length: part.bytes.length });
      return;
    }
    for (const { offset: at, bytes } of parts) {
      history.changed(at, bytes, { start, end: done ? position() : Number.POSITIVE_INFINITY });
    }
  }

  /** Some clusters, and some of the sectors of others, are zeros. */
  #partToFill(offset: number, length: number): FilledPart {
    const { random, clusterSize } = this.#o;
    const bytes = taggedBytes(this.#writes++, offset, length);
    for (let at = 0; at < length; at += clusterSize) {
      if (random.chance(0.25)) bytes.fill(0, at, at + clusterSize);
      else if (random.chance(0.3)) bytes.fill(0, at + SECTOR * random.below(clusterSize / SECTOR), at + clusterSize);
    }
    return { offset, bytes };
  }

  /** Each sector is as before, or as filled. */
  async #readWhileFilled({ offset, bytes }: FilledPart): Promise<void> {
    const { device, history } = this.#o;
    const now = new Uint8Array(bytes.length);
    const before = history.live.slice(offset, offset + bytes.length);
    const what = `read ${offset}+${bytes.length} while it is filled`;
    if (!(await this.#attempt(what, () => device.read(offset, now)))) return;
    for (let at = 0; at < bytes.length; at += SECTOR) {
      const seen = now.subarray(at, at + SECTOR);
      if (equalBytes(seen, bytes.subarray(at, at + SECTOR)) || equalBytes(seen, before.subarray(at, at + SECTOR)))
        continue;
      if (!history.mayShow((offset + at) / SECTOR, 0, seen)) {
        throw new Error(`${what}: wrong bytes at ${offset + at} (seed ${this.#o.random.seed})`);
      }
    }
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
