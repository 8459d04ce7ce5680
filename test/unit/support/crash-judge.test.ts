import { describe, expect, it } from "vitest";
import type { ZoneDescriptor } from "../../../src/zoned/zone-state.js";
import { crashedFile } from "../../support/crash-images.js";
import { Random, taggedBytes } from "../../support/random.js";
import { SECTOR, SectorHistory } from "../../support/sector-history.js";
import { ZoneHistory } from "../../support/zone-history.js";

/** The judges of the crash tests must find what they are made to find. */

const A = taggedBytes(1, 0, SECTOR);
const B = taggedBytes(2, 0, SECTOR);
const ZEROS = new Uint8Array(SECTOR);

describe("the history of sectors", () => {
  const history = new SectorHistory(SECTOR * 2);
  history.changed(0, A, { start: 0, end: 2 });
  history.flushed({ start: 4, end: 6 });
  history.changed(0, B, { start: 8, end: 10 });

  it("allows either state of a write that was not flushed", () => {
    expect(history.allows(0, ZEROS, 5)).toBe(true);
    expect(history.allows(0, A, 5)).toBe(true);
    expect(history.allows(0, A, 9)).toBe(true);
    expect(history.allows(0, B, 9)).toBe(true);
  });

  it("refuses the loss of a flushed write", () => {
    expect(history.allows(0, ZEROS, 6)).toBe(false);
    expect(history.judge(new Uint8Array(SECTOR * 2), 20)).toHaveLength(1);
  });

  it("refuses data of a write that had not begun", () => {
    expect(history.allows(0, B, 7)).toBe(false);
  });

  it("refuses data where nothing was ever written", () => {
    expect(history.allows(1, A, 20)).toBe(false);
  });

  it("never counts a failed write as done", () => {
    const failing = new SectorHistory(SECTOR);
    failing.changed(0, A, { start: 0, end: Number.POSITIVE_INFINITY });
    failing.flushed({ start: 5, end: 6 });
    expect(failing.allows(0, ZEROS, 9)).toBe(true);
    expect(failing.allows(0, A, 9)).toBe(true);
  });
});

describe("the history of zones", () => {
  const size = 8 * SECTOR;
  const history = new ZoneHistory({ zoneSize: size, zoneCapacity: size, conventionalZones: 0, size });
  const first = taggedBytes(1, 0, SECTOR * 2);
  history.wrote(0, 0, first, { start: 0, end: 2 });
  history.flushed({ start: 3, end: 5 });
  history.reset(0, { start: 6, end: 9 });
  const second = taggedBytes(2, 0, SECTOR);
  history.wrote(0, 0, second, { start: 10, end: 12 });

  const zone = (pointer: number, bytes: Uint8Array): [ZoneDescriptor, Uint8Array] => {
    const all = new Uint8Array(size);
    all.set(bytes);
    const state = pointer === 0 ? "empty" : "closed";
    const fixed = { index: 0, start: 0, length: size, capacity: size, type: "sequential-write-required" } as const;
    return [{ ...fixed, writePointer: pointer, state }, all];
  };
  const judge = (pointer: number, bytes: Uint8Array, position: number): number =>
    history.judge(0, ...zone(pointer, bytes), position).length;

  it("accepts what was flushed, and a reset in flight either way", () => {
    expect(judge(SECTOR * 2, first, 5)).toBe(0);
    expect(judge(SECTOR * 2, first, 7)).toBe(0);
    expect(judge(0, ZEROS, 7)).toBe(0);
    expect(judge(SECTOR, second, 13)).toBe(0);
  });

  it("refuses a pointer behind the flushed one", () => {
    expect(judge(SECTOR, first.subarray(0, SECTOR), 5)).not.toBe(0);
  });

  it("refuses old data after a finished reset", () => {
    expect(judge(SECTOR * 2, first, 9)).not.toBe(0);
    expect(judge(SECTOR, first.subarray(0, SECTOR), 13)).not.toBe(0);
  });

  it("refuses data past the pointer", () => {
    expect(judge(0, first, 9)).not.toBe(0);
  });

  it("refuses acknowledgements out of order", () => {
    expect(() => history.wrote(0, SECTOR * 3, second, { start: 14, end: 15 })).toThrow("acknowledged at");
  });
});

describe("a crashed file", () => {
  const initial = new Uint8Array(SECTOR * 4);
  const write = (at: number, bytes: Uint8Array, started: number, completed: number | undefined) =>
    ({ kind: "write", at, length: bytes.length, bytes, started, completed }) as const;
  const history = {
    initial,
    changes: [write(0, A, 0, 1), write(SECTOR, A, 2, 5), write(SECTOR, B, 6, 7), write(SECTOR * 2, A, 8, undefined)],
    flushes: [{ started: 3, completed: 4 }],
  };
  const sectors = (file: Uint8Array): Uint8Array[] => [0, 1, 2].map((i) => file.slice(i * SECTOR, (i + 1) * SECTOR));

  it("keeps what completed before the flush began and nothing else when all the rest is lost", () => {
    expect(sectors(crashedFile(history, 20, "flushed", new Random(1)))).toEqual([A, ZEROS, ZEROS]);
  });

  it("keeps all completed writes when only the process was killed", () => {
    expect(sectors(crashedFile(history, 8, "killed", new Random(1)))).toEqual([A, B, ZEROS]);
  });

  it("shows each state of a sector at some seed, and only states it had", () => {
    const seen = new Set<string>();
    for (let seed = 0; seed < 200; seed++) {
      const second = sectors(crashedFile(history, 20, "sectors", new Random(seed)))[1] as Uint8Array;
      seen.add(Buffer.from(second).toString("hex"));
    }
    expect(seen).toEqual(new Set([ZEROS, A, B].map((bytes) => Buffer.from(bytes).toString("hex"))));
  });
});
