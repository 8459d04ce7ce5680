import { describe, expect, it } from "vitest";
import type { ZonedDevice } from "../../src/block/zoned-device.js";
import { createQcow2 } from "../../src/formats/qcow2/create.js";
import type { OpenQcow2Options } from "../../src/formats/qcow2/open.js";
import { borrowedStorage } from "../../src/storage/borrowed-storage.js";
import { ChangeJournal } from "../../src/storage/change-journal.js";
import { type MemoryStorage, memoryStorage } from "../../src/storage/memory-storage.js";
import { recordingStorage } from "../../src/storage/recording-storage.js";
import type { Storage } from "../../src/storage/storage.js";
import { CRASH_KINDS, crashedFile } from "../support/crash-images.js";
import { joined } from "../support/disk-bytes.js";
import { MemoryJournal } from "../support/memory-journal.js";
import { openZoned } from "../support/open-zoned.js";
import { Random } from "../support/random.js";
import { referenceCheck } from "../support/reference-check.js";
import { ReferenceImage } from "../support/reference-image.js";
import { isAllZero, SECTOR } from "../support/sector-history.js";
import { WatchedStorage } from "../support/watched-storage.js";

/**
 * Zones that keep their clusters when they are reset: what the clusters held before (`STALE`) is not overwritten when the start of one is,
 * and must not be in the file for anybody who reads by the mapping alone, who knows no write pointers.
 */

const KIB = 1024;
const CLUSTER = 4 * KIB;
const ZONE = 32 * KIB;
const ZONES = 5;
const STALE = 0x99;

function open(storage: Storage, options: OpenQcow2Options = {}): Promise<ZonedDevice> {
  return openZoned(storage, { keepZoneSpace: true, ...options });
}

/** All zones were written whole with `STALE`, and reset, durably. */
async function resetImage(): Promise<MemoryStorage> {
  const storage = memoryStorage();
  await createQcow2(storage, {
    size: ZONES * ZONE,
    clusterSize: CLUSTER,
    zone: { mode: "host-managed", size: ZONE, capacity: ZONE - 3 * KIB },
  });
  const device = await open(borrowedStorage(storage));
  for (let zone = 0; zone < ZONES; zone++) {
    await device.write(zone * ZONE, new Uint8Array(ZONE - 3 * KIB).fill(STALE));
  }
  await device.flush();
  await device.resetZones(0, ZONES * ZONE);
  await device.close();
  return storage;
}

/** What each zone holds up to its write pointer. */
type Contents = readonly Uint8Array[];

const NOTHING: Contents = Array.from({ length: ZONES }, () => new Uint8Array());

/**
 * Appends of many lengths to all zones, resets, finishes and flushes. Tells what is durable from then on. Ends with a look at whether
 * everything is there.
 */
async function use(
  device: ZonedDevice,
  random: Random,
  steps: number,
  promise: (durable: Contents) => void,
  onWritten: (written: Contents) => void = () => undefined,
): Promise<void> {
  const written = [...NOTHING];
  let durable = [...NOTHING];
  const capacity = ZONE - 3 * KIB;
  for (let step = 0; step < steps; step++) {
    const zone = random.below(ZONES);
    const before = written[zone] as Uint8Array;
    const kind = random.weighted({ append: 24, flush: 3, reset: 2, finish: 1, zeroes: 1, meanwhile: 3 });
    const length = Math.min(capacity - before.length, random.pick([1, 1, 3, 4, 8, 9, 20]) * SECTOR);
    if (kind === "flush") {
      await device.flush();
      durable = [...written];
      promise([...durable]);
    } else if (kind === "reset") {
      durable[zone] = new Uint8Array();
      promise([...durable]);
      await device.resetZones(zone * ZONE, ZONE);
      written[zone] = new Uint8Array();
    } else if (kind === "finish" && before.length > 0) {
      await device.finishZones(zone * ZONE, ZONE);
      written[zone] = joined(before, new Uint8Array(capacity - before.length));
      durable[zone] = written[zone];
      promise([...durable]);
    } else if (length > 0) {
      // What a flush that began before it need not cover.
      const flushing = kind === "meanwhile" ? device.flush() : undefined;
      const covered = [...written];
      const bytes = new Uint8Array(length).fill(kind === "zeroes" ? 0 : 1 + (step % 0x90));
      if (kind === "zeroes") await device.writeZeroes(zone * ZONE + before.length, length);
      else await device.append(zone * ZONE, bytes);
      written[zone] = joined(before, bytes);
      onWritten([...written]);
      if (flushing === undefined) continue;
      await flushing;
      durable = covered;
      promise([...durable]);
    }
  }
  await expectContents(device, written, `seed ${random.seed}, before the end`);
}

/** Every zone begins with what is expected, and shows zeros past its pointer. */
async function expectContents(device: ZonedDevice, contents: Contents, where: string): Promise<void> {
  for (const { index, start, writePointer } of device.report()) {
    const bytes = new Uint8Array(ZONE);
    await device.read(start, bytes);
    const expected = contents[index] as Uint8Array;
    expect(writePointer - start, `${where}, pointer of zone ${index}`).toBeGreaterThanOrEqual(expected.length);
    expect(Buffer.compare(bytes.subarray(0, expected.length), expected), `${where}, zone ${index}`).toBe(0);
    expect(isAllZero(bytes.subarray(writePointer - start)), `${where}, past the pointer of zone ${index}`).toBe(true);
    expect(bytes.includes(STALE), `${where}, zone ${index}`).toBe(false);
  }
}

/** What is wrong with a file for those who know the mapping only. */
function staleIn(file: Uint8Array): string[] {
  const image = new ReferenceImage(file);
  const problems = [...referenceCheck(file).corruptions];
  for (let zone = 0; zone < ZONES; zone++) {
    const at = image.readGuest(zone * ZONE, ZONE).indexOf(STALE);
    if (at >= 0) problems.push(`zone ${zone} shows at ${at} what it held before its reset`);
  }
  return problems;
}

/** Nothing stale, and all that was promised. */
async function judge(file: Uint8Array, promised: Contents, where: string): Promise<void> {
  expect(staleIn(file), where).toEqual([]);
  const device = await open(memoryStorage(file));
  await expectContents(device, promised, where);
  await device.close();
}

/** A process that was killed, and what it had acknowledged by then. */
interface Killed {
  readonly file: MemoryStorage;
  readonly journal: Uint8Array | undefined;
  readonly acknowledged: Contents;
}

/** The next process finishes what the killed one did; a power cut while it does so is harmless, too. */
async function judgeKilled({ file, journal, acknowledged }: Killed, random: Random, where: string): Promise<void> {
  const memory = file.clone();
  const initial = memory.bytes();
  const recorder = recordingStorage(borrowedStorage(memory), memory);
  const device = await open(recorder, { journal: new ChangeJournal(new MemoryJournal(journal)) });
  await judge(memory.bytes(), acknowledged, where);
  await device.close();
  const history = { initial, changes: recorder.changes, flushes: recorder.flushes };
  for (const cut of recorder.flushMoments()) {
    const kind = random.pick(CRASH_KINDS);
    const crashed = crashedFile(history, cut, kind, random);
    expect(staleIn(crashed), `${where}, power cut at ${cut} of its replay, ${kind}`).toEqual([]);
  }
}

describe("reserved clusters of which only the start is written again", () => {
  it.each([
    ["a cache for all tables", {}],
    ["a cache that forces write-backs", { cacheBytes: 2 * KIB }],
  ])(
    "show nothing of their former life after a power cut at any call, flush boundaries among them (%s)",
    async (_name, options) => {
      const initial = (await resetImage()).bytes();
      for (let seed = 1; seed <= 4; seed++) {
        const random = new Random(seed);
        const memory = memoryStorage(initial);
        const recorder = recordingStorage(borrowedStorage(memory), memory);
        const device = await open(recorder, options);
        const promises: { readonly from: number; readonly durable: Contents }[] = [];
        await use(device, random, 120, (durable) => promises.push({ from: recorder.moment(), durable }));
        const history = { initial, changes: recorder.changes, flushes: recorder.flushes };
        const some = Array.from({ length: 40 }, () => random.below(recorder.moment()));
        for (const moment of new Set([...recorder.flushMoments(), ...some])) {
          for (const kind of CRASH_KINDS) {
            const file = crashedFile(history, moment, kind, random);
            const durable = promises.findLast(({ from }) => from <= moment)?.durable ?? NOTHING;
            await judge(file, durable, `seed ${seed}, power cut at ${moment} of ${recorder.moment()}, ${kind}`);
          }
        }
        await device.close();
        expect(staleIn(memory.bytes())).toEqual([]);
      }
    },
    20_000,
  );

  it("show nothing of it, and all that was acknowledged is there, when the process is killed at any call and its journal replayed", async () => {
    const initial = (await resetImage()).bytes();
    for (let seed = 1; seed <= 4; seed++) {
      const random = new Random(seed);
      const memory = memoryStorage(initial);
      const place = new MemoryJournal();
      const journal = new ChangeJournal(place);
      const killed: Killed[] = [];
      let acknowledged = NOTHING;
      const watched = new WatchedStorage(borrowedStorage(memory));
      const device = await open(watched, { journal });
      watched.onChange = () => {
        if (random.chance(0.06)) killed.push({ file: memory.clone(), journal: place.load(), acknowledged });
      };
      const promise = (durable: Contents): void => {
        acknowledged = durable.map((bytes, zone) => {
          const before = acknowledged[zone] as Uint8Array;
          return bytes.length === 0 || bytes.length > before.length ? bytes : before;
        });
      };
      // A server commits before it answers.
      await use(device, random, 150, promise, (written) => {
        if (random.chance(0.5)) return;
        journal.commit();
        acknowledged = written;
      });
      expect(killed.length).toBeGreaterThan(10);
      for (const [index, one] of killed.entries()) await judgeKilled(one, random, `seed ${seed}, killed ${index}`);
      await device.close();
    }
  }, 20_000);
});
