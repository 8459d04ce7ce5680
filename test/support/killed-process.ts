import type { BlockDevice } from "../../src/block/block-device.js";
import { isZonedDevice, type ZonedDevice } from "../../src/block/zoned-device.js";
import { createQcow2 } from "../../src/formats/qcow2/create.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { ChangeJournal } from "../../src/storage/change-journal.js";
import { type MemoryStorage, memoryStorage } from "../../src/storage/memory-storage.js";
import type { CrashGeometry } from "./crash-geometries.js";
import { expectSound } from "./engine-images.js";
import { JitteryStorage } from "./jittery-storage.js";
import { MemoryJournal } from "./memory-journal.js";
import { Random } from "./random.js";
import { SECTOR } from "./sector-history.js";
import { WatchedStorage } from "./watched-storage.js";

/**
 * A process with an image and a journal, killed at any call of the storage: what it had acknowledged must be there for the
 * next one, which finds the image as the page cache has it and the journal. A request counts as acknowledged as in a
 * server: when it is done and the journal was committed afterwards.
 */

const FILL_TAG = 0xf111_f111;

/** What each sector may hold: the tags of writes, 0 for zeros. */
type Allowed = Map<number, ReadonlySet<number>>;

interface Moment {
  readonly image: MemoryStorage;
  readonly journal: Uint8Array | undefined;
  readonly sectors: Allowed;
  readonly pointers: ReadonlyMap<number, readonly [least: number, most: number, orStart: boolean]>;
}

/** The sectors of a disk: what is acknowledged, and what is under way. */
class Sectors {
  readonly #settled: number[];
  readonly #under = new Map<number, Set<number>>();

  constructor(count: number) {
    this.#settled = new Array<number>(count).fill(0);
  }

  isFree(first: number, count: number): boolean {
    for (let i = first; i < first + count; i++) if (this.#under.has(i)) return false;
    return true;
  }

  /** A change to `tag` begins. */
  begin(first: number, count: number, tag: number): void {
    for (let i = first; i < first + count; i++) this.#under.set(i, new Set([this.#settled[i] ?? 0, tag]));
  }

  end(first: number, count: number, tag: number): void {
    for (let i = first; i < first + count; i++) {
      this.#under.delete(i);
      this.#settled[i] = tag;
    }
  }

  /** What was there is not known any more, until the next change. */
  forget(first: number, count: number): void {
    for (let i = first; i < first + count; i++) this.#settled[i] = -1;
  }

  allowed(): Allowed {
    return new Map(this.#settled.map((tag, index) => [index, this.#under.get(index) ?? new Set([tag])]));
  }
}

function tagged(tag: number, sectors: number): Uint8Array {
  const bytes = new Uint8Array(sectors * SECTOR);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < bytes.length; at += 4) view.setUint32(at, tag);
  return bytes;
}

interface Zone {
  readonly start: number;
  readonly length: number;
  readonly capacity: number;
  /** Acknowledged, and what requests under way may reach, bytes. */
  least: number;
  most: number;
  resetting: boolean;
}

/** Runs a random workload against an image and takes `moments` of it at random calls. */
export async function momentsOfProcess(
  geometry: CrashGeometry,
  seed: number,
  options: { readonly steps: number; readonly moments: number },
): Promise<readonly Moment[]> {
  const random = new Random(seed);
  const image = memoryStorage();
  await createQcow2(image, geometry.options);
  const place = new MemoryJournal();
  const journal = new ChangeJournal(place);
  const moments: Moment[] = [];
  const watched = new WatchedStorage(image);
  const storage = random.chance(0.5) ? new JitteryStorage(watched, random) : watched;
  const device: BlockDevice = await openQcow2(storage, {
    journal,
    keepZoneSpace: geometry.keepZoneSpace ?? false,
    ...(geometry.cacheBytes === undefined ? {} : { cacheBytes: geometry.cacheBytes }),
  });
  const sequentialStart = isZonedDevice(device)
    ? device.report().filter(({ type }) => type === "conventional").length * (device.limits.zoned?.zoneSize ?? 0)
    : device.size;
  const sectors = new Sectors(Math.floor(device.size / SECTOR));
  const zones: Zone[] = isZonedDevice(device)
    ? device
        .report()
        .filter(({ type }) => type !== "conventional")
        .map(({ start, length, capacity }) => ({ start, length, capacity, least: 0, most: 0, resetting: false }))
    : [];
  const from = (geometry.from ?? 0) / SECTOR;
  const filled = (geometry.prefill ?? 0) / SECTOR;
  if (filled > 0) {
    sectors.begin(0, filled, FILL_TAG);
    await device.write(0, tagged(FILL_TAG, filled));
    sectors.end(0, filled, FILL_TAG);
    await device.flush();
  }
  watched.onChange = () => {
    if (moments.length >= options.moments || !random.chance(0.05)) return;
    moments.push({
      image: image.clone(),
      journal: place.load(),
      sectors: sectors.allowed(),
      pointers: new Map(zones.map((zone) => [zone.start, [zone.least, zone.most, zone.resetting]])),
    });
  };
  let tag = 0;
  // Done, and not acknowledged: as in a server, that takes a commit, later.
  let done: (() => void)[] = [];
  const acknowledge = (): void => {
    journal.commit();
    const acknowledged = done;
    done = [];
    for (const end of acknowledged) end();
  };
  const finished = (end: () => void): void => {
    done.push(end);
    if (random.chance(0.3)) acknowledge();
  };
  const plain = async (): Promise<void> => {
    const count = random.between(1, random.chance(0.1) ? 64 : 6);
    const first = from + random.below(Math.max(1, sequentialStart / SECTOR - from - count));
    if (first + count > sequentialStart / SECTOR || !sectors.isFree(first, count)) return;
    const kind = random.weighted({ write: 10, zeroes: 2, discard: 2 });
    const value = kind === "write" ? ++tag : 0;
    sectors.begin(first, count, value);
    if (kind === "write") await device.write(first * SECTOR, tagged(value, count));
    else if (kind === "zeroes") {
      await device.writeZeroes(first * SECTOR, count * SECTOR, { unmap: random.chance(0.5) });
    } else await device.discard(first * SECTOR, count * SECTOR);
    finished(() => {
      sectors.end(first, count, value);
      // A discard is a hint.
      if (kind === "discard") sectors.forget(first, count);
    });
  };
  const append = async (disk: ZonedDevice, zone: Zone): Promise<void> => {
    const length = Math.min(random.between(1, 6) * SECTOR, zone.capacity - zone.most);
    if (length <= 0 || zone.resetting) return;
    const value = ++tag;
    const first = (zone.start + zone.most) / SECTOR;
    zone.most += length;
    sectors.begin(first, length / SECTOR, value);
    const at = await Promise.resolve(disk.append(zone.start, tagged(value, length / SECTOR)));
    if (at !== first * SECTOR) throw new Error(`append went to ${at}, not ${first * SECTOR}`);
    finished(() => {
      sectors.end(first, length / SECTOR, value);
      zone.least = Math.max(zone.least, at + length - zone.start);
    });
  };
  const reset = async (disk: ZonedDevice, zone: Zone): Promise<void> => {
    if (zone.resetting || zone.least !== zone.most || zone.most === 0) return;
    zone.resetting = true;
    const [first, count] = [zone.start / SECTOR, zone.most / SECTOR];
    sectors.begin(first, count, 0);
    await disk.resetZones(zone.start, zone.length);
    finished(() => {
      sectors.end(first, count, 0);
      zone.least = 0;
      zone.most = 0;
      zone.resetting = false;
    });
  };
  const zoned = async (disk: ZonedDevice): Promise<void> => {
    const zone = random.pick(zones);
    const kind = random.weighted({ append: 12, reset: 1 });
    await (kind === "append" ? append(disk, zone) : reset(disk, zone)).catch((error: unknown) => {
      if (!/TOO_MANY/.test((error as { code?: string }).code ?? "")) throw error;
      // Refused for want of resources: it never was.
      zone.most = zone.least;
    });
  };
  for (let step = 0; step < options.steps && moments.length < options.moments; step++) {
    const jobs: Promise<void>[] = [];
    const width = random.between(1, 5);
    for (let i = 0; i < width; i++) {
      if (random.chance(0.15)) jobs.push(Promise.resolve(device.flush()));
      else if (isZonedDevice(device) && (sequentialStart === 0 || random.chance(0.8))) jobs.push(zoned(device));
      else jobs.push(plain());
    }
    await Promise.all(jobs);
    if (random.chance(0.5)) acknowledge();
  }
  await device.close();
  if (place.bytes !== undefined) throw new Error("the journal outlives a clean close");
  expectSound(image.bytes());
  return moments;
}

/** Opens the image as the next process does, and compares. Throws what is wrong. */
export async function expectNothingLost({ image, journal, sectors, pointers }: Moment): Promise<void> {
  const place = new MemoryJournal(journal);
  const codes: string[] = [];
  const device = await openQcow2(image.clone(), {
    journal: new ChangeJournal(place),
    onWarning: ({ code }) => codes.push(code),
  });
  if (codes.includes("SESSION_LOST")) throw new Error("the journal was not taken");
  const bytes = new Uint8Array(device.size);
  await device.read(0, bytes);
  const view = new DataView(bytes.buffer);
  for (const [sector, allowed] of sectors) {
    const found = view.getUint32(sector * SECTOR);
    if (allowed.has(found) || allowed.has(-1)) continue;
    throw new Error(`sector ${sector} holds ${found}, not one of ${[...allowed].join(", ")}`);
  }
  for (const [start, [least, most, orStart]] of pointers) {
    const zone = isZonedDevice(device) ? device.report(start, 1)[0] : undefined;
    const pointer = (zone?.writePointer ?? 0) - start;
    if ((pointer >= least && pointer <= most) || (orStart && pointer === 0)) continue;
    throw new Error(`the zone at ${start} has its pointer at ${pointer}, not between ${least} and ${most}`);
  }
  await device.close();
}

/** The same, and the image is sound afterwards, for whoever opens it without a journal too. */
export async function expectResumedSound(moment: Moment): Promise<void> {
  const image = moment.image.clone();
  const device = await openQcow2(image, { journal: new ChangeJournal(new MemoryJournal(moment.journal)) });
  // Closing closes the storage; a copy shows what was left.
  const left = image.clone();
  await device.close();
  expectSound(left.bytes());
}
