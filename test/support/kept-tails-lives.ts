import { expect } from "vitest";
import type { ZonedDevice } from "../../src/block/zoned-device.js";
import { createQcow2 } from "../../src/formats/qcow2/create.js";
import { openQcow2 } from "../../src/formats/qcow2/open.js";
import { applySnapshot, createSnapshot, deleteSnapshot } from "../../src/jobs/snapshot.js";
import { borrowedStorage } from "../../src/storage/borrowed-storage.js";
import { ChangeJournal } from "../../src/storage/change-journal.js";
import { type MemoryStorage, memoryStorage } from "../../src/storage/memory-storage.js";
import { recordingStorage } from "../../src/storage/recording-storage.js";
import { CRASH_KINDS, crashedFile } from "./crash-images.js";
import { joined } from "./disk-bytes.js";
import { MemoryJournal } from "./memory-journal.js";
import { openZoned } from "./open-zoned.js";
import { Random } from "./random.js";
import { referenceCheck } from "./reference-check.js";
import { ReferenceImage } from "./reference-image.js";
import { isAllZero, SECTOR } from "./sector-history.js";

/**
 * One image through many processes that keep the clusters of zones they reset: each ends by closing it, by a power cut, or killed with a
 * journal, and the next goes on with what it finds. Snapshots are taken, applied and deleted between them. Bytes tell how often their zone
 * had been reset when they were written, so that anything that comes back after a durable reset is known.
 */

const KIB = 1024;
const CLUSTER = 4 * KIB;
const ZONE = 32 * KIB;
const CAPACITY = ZONE - 3 * KIB;
const ZONES = 5;
const EPOCHS = 24;
const qcow2 = { format: "qcow2" } as const;

/** A zone as its users know it. */
interface KnownZone {
  /** What was written, up to the write pointer. */
  written: Uint8Array;
  /** What must be there whatever happens. */
  durable: Uint8Array;
  epoch: number;
  /** Bytes that the zone may hold, and those of them that were written since its last reset. */
  allowed: Set<number>;
  since: Set<number>;
}

/** A zone in a snapshot. What a power cut left mapped past the write pointer comes along. */
type KeptZone = Pick<KnownZone, "written" | "allowed">;

type Ending = "close" | "cut" | "kill";

export class KeptTailsLives {
  readonly #random: Random;
  #image: MemoryStorage = memoryStorage();
  readonly #zones: KnownZone[] = Array.from({ length: ZONES }, () => ({
    written: new Uint8Array(),
    durable: new Uint8Array(),
    epoch: 0,
    allowed: new Set<number>(),
    since: new Set<number>(),
  }));
  #step = 0;
  readonly #snapshots = new Map<string, readonly KeptZone[]>();
  readonly #past: string[] = [];
  /** How many of each kind of end there were. */
  readonly endings = { close: 0, cut: 0, kill: 0 };

  constructor(seed: number) {
    this.#random = new Random(seed);
  }

  async run(lives: number, steps: number): Promise<void> {
    await createQcow2(borrowedStorage(this.#image), {
      size: ZONES * ZONE,
      clusterSize: CLUSTER,
      zone: { mode: "host-managed", size: ZONE, capacity: CAPACITY },
    });
    for (let life = 0; life < lives; life++) {
      const ending = this.#random.weighted<Ending>({ close: 2, cut: 4, kill: 3 });
      this.endings[ending] += 1;
      this.#past.push(`life ${life} (${ending})`);
      await this.#live(steps, ending);
      await this.#judge();
      if (this.#random.chance(0.5)) await this.#changeSnapshots();
    }
  }

  get #where(): string {
    return `seed ${this.#random.seed}: ${this.#past.join(", ")}`;
  }

  /** A process from its start to its end. */
  async #live(steps: number, ending: Ending): Promise<void> {
    const random = this.#random;
    const initial = this.#image.bytes();
    const recorder = recordingStorage(borrowedStorage(this.#image), this.#image);
    const place = new MemoryJournal();
    const journal = ending === "kill" ? new ChangeJournal(place) : undefined;
    const device = await openZoned(recorder, {
      keepZoneSpace: random.chance(0.85),
      ...(random.chance(0.4) ? { cacheBytes: random.pick([2, 4]) * KIB } : {}),
      ...(journal === undefined ? {} : { journal }),
    });
    // The power fails somewhere in the last steps, after all that is durable by then.
    let earliest = recorder.moment();
    for (let step = 0; step < steps; step++) {
      this.#step += 1;
      if (await this.#use(device, journal)) earliest = recorder.moment();
    }
    if (ending === "close") {
      await device.close();
      for (const zone of this.#zones) settle(zone);
      return;
    }
    const unflushed = ending === "kill" ? undefined : random.chance(0.3) ? device.flush() : undefined;
    const file =
      ending === "kill"
        ? this.#image.clone()
        : memoryStorage(
            crashedFile(
              { initial, changes: recorder.changes, flushes: recorder.flushes },
              random.between(earliest, recorder.moment()),
              random.pick(CRASH_KINDS),
              random,
            ),
          );
    const left = place.load();
    await unflushed;
    await device.close();
    if (ending === "kill") {
      const next = await openQcow2(borrowedStorage(file), { journal: new ChangeJournal(new MemoryJournal(left)) });
      await next.close();
    }
    this.#image = file;
  }

  /** One request. True when what must be there from now on has changed. */
  async #use(device: ZonedDevice, journal: ChangeJournal | undefined): Promise<boolean> {
    const random = this.#random;
    const index = random.below(ZONES);
    const zone = this.#zones[index] as KnownZone;
    const start = index * ZONE;
    const kind = random.weighted({ append: 20, write: 6, zeroes: 2, flush: 3, reset: 3, finish: 1 });
    if (kind === "flush") {
      await device.flush();
      for (const one of this.#zones) settle(one);
      return true;
    }
    if (kind === "reset") {
      zone.durable = new Uint8Array();
      await device.resetZones(start, ZONE);
      zone.written = new Uint8Array();
      zone.since = new Set();
      zone.epoch += 1;
      return true;
    }
    if (kind === "finish") {
      await device.finishZones(start, ZONE);
      zone.written = joined(zone.written, new Uint8Array(CAPACITY - zone.written.length));
      return false;
    }
    const length = Math.min(CAPACITY - zone.written.length, random.pick([1, 1, 2, 3, 7, 8, 9, 20]) * SECTOR);
    if (length <= 0) return false;
    const value = kind === "zeroes" ? 0 : 1 + (zone.epoch % EPOCHS) * 10 + (this.#step % 10);
    const bytes = new Uint8Array(length).fill(value);
    zone.allowed.add(value);
    zone.since.add(value);
    if (kind === "append") expect(await device.append(start, bytes), this.#where).toBe(start + zone.written.length);
    else if (kind === "write") await device.write(start + zone.written.length, bytes);
    else await device.writeZeroes(start + zone.written.length, length);
    zone.written = joined(zone.written, bytes);
    if (journal === undefined || random.chance(0.4)) return false;
    // As a server, before it answers.
    journal.commit();
    for (const one of this.#zones) settle(one);
    return true;
  }

  /** What is in the file, for those who know write pointers and for those who do not; the model goes on from there. */
  async #judge(): Promise<void> {
    const file = this.#image.bytes();
    const where = this.#where;
    expect(referenceCheck(file).corruptions, where).toEqual([]);
    const mapped = new ReferenceImage(file);
    const device = await openZoned(memoryStorage(file));
    for (const { index, start, writePointer } of device.report()) {
      const zone = this.#zones[index] as KnownZone;
      const bytes = new Uint8Array(ZONE);
      await device.read(start, bytes);
      const written = Math.min(writePointer - start, CAPACITY);
      expect(written, `${where}, pointer of zone ${index}`).toBeGreaterThanOrEqual(zone.durable.length);
      expect(Buffer.compare(bytes.subarray(0, zone.durable.length), zone.durable), `${where}, zone ${index}`).toBe(0);
      expect(isAllZero(bytes.subarray(written)), `${where}, past the pointer of zone ${index}`).toBe(true);
      for (const view of [bytes, mapped.readGuest(start, ZONE)]) {
        const stale = [...new Set(view)].filter((byte) => byte !== 0 && !zone.allowed.has(byte));
        expect(stale, `${where}, bytes of zone ${index} from before its reset`).toEqual([]);
      }
      zone.written = bytes.slice(0, written);
      zone.durable = zone.written;
      // What the last process wrote behind the pointer is gone for good, or it would have been seen.
      zone.allowed = new Set([...zone.written, ...new Set(mapped.readGuest(start, ZONE))]);
      zone.since = new Set(zone.allowed);
      zone.epoch += 1;
    }
    await device.close();
    for (const [name, contents] of this.#snapshots) {
      const snapshot = await openQcow2(memoryStorage(file), { readOnly: true, snapshot: name });
      for (const [index, { written: expected }] of contents.entries()) {
        const bytes = new Uint8Array(ZONE);
        await snapshot.read(index * ZONE, bytes);
        const isSame = Buffer.compare(bytes.subarray(0, expected.length), expected) === 0;
        expect(isSame && isAllZero(bytes.subarray(expected.length)), `${where}, zone ${index} of ${name}`).toBe(true);
      }
      await snapshot.close();
    }
  }

  async #changeSnapshots(): Promise<void> {
    const random = this.#random;
    const names = [...this.#snapshots.keys()];
    const kind = names.length === 0 ? "take" : random.pick(["take", "apply", "delete"] as const);
    const name = kind === "take" ? `s${this.#past.length}` : random.pick(names);
    this.#past.push(`${kind} ${name}`);
    const image = borrowedStorage(this.#image);
    if (kind === "take") {
      await createSnapshot(image, { ...qcow2, name });
      this.#snapshots.set(
        name,
        this.#zones.map(({ written, allowed }) => ({ written, allowed: new Set(allowed) })),
      );
    } else if (kind === "delete") {
      await deleteSnapshot(image, { ...qcow2, snapshot: name });
      this.#snapshots.delete(name);
    } else {
      await applySnapshot(image, { ...qcow2, snapshot: name });
      for (const [index, { written, allowed }] of (this.#snapshots.get(name) ?? []).entries()) {
        const zone = this.#zones[index] as KnownZone;
        Object.assign(zone, { written, durable: written, allowed: new Set(allowed), since: new Set(allowed) });
      }
    }
    await this.#judge();
  }
}

/** All that was done is durable. */
function settle(zone: KnownZone): void {
  zone.durable = zone.written;
  zone.allowed = new Set(zone.since);
}
