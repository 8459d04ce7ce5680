import { expect, it } from "vitest";
import { isZonedDevice } from "../../../../src/block/zoned-device.js";
import { ChangedRanges } from "../../../../src/formats/qcow2/changed-ranges.js";
import { createQcow2 } from "../../../../src/formats/qcow2/create.js";
import { openQcow2 } from "../../../../src/formats/qcow2/open.js";
import { ChangeJournal } from "../../../../src/storage/change-journal.js";
import { memoryStorage } from "../../../../src/storage/memory-storage.js";
import { MemoryJournal } from "../../../support/memory-journal.js";
import { Random } from "../../../support/random.js";

const KIB = 1024;
const MIB = 1024 * KIB;

function list(ranges: ChangedRanges): [number, number][] {
  return Array.from({ length: ranges.count }, (_, index) => [ranges.from(index), ranges.to(index)]);
}

function of(...pairs: [number, number][]): ChangedRanges {
  const ranges = new ChangedRanges();
  for (const [from, to] of pairs) ranges.add(from, to);
  return ranges;
}

it("keeps changes far from each other apart, and joins those that touch or nearly do", () => {
  expect(list(of([4096, 4104], [0, 8], [8192, 8200]))).toEqual([
    [0, 8],
    [4096, 4104],
    [8192, 8200],
  ]);
  expect(list(of([0, 8], [8, 16], [40, 48], [100, 108]))).toEqual([
    [0, 48],
    [100, 108],
  ]);
  expect(list(of([0, 8], [200, 208], [400, 408], [4, 402]))).toEqual([[0, 408]]);
  expect(list(of([100, 200], [120, 130]))).toEqual([[100, 200]]);
});

it("joins the nearest ones when they become too many", () => {
  const pairs = Array.from({ length: 8 }, (_, index): [number, number] => [index * 1000, index * 1000 + 8]);
  const ranges = of(...pairs, [3500, 3508]);
  expect(ranges.count).toBe(8);
  expect(list(ranges)).toContainEqual([3000, 3508]);
});

it("covers every byte that changed, in ascending order, whatever comes", () => {
  const random = new Random(7);
  for (let round = 0; round < 300; round++) {
    const changed = new Uint8Array(4096);
    const [ranges, other] = [new ChangedRanges(), new ChangedRanges()];
    for (let i = 0; i < 30; i++) {
      const from = random.below(4096);
      const to = Math.min(4096, from + 1 + random.below(random.below(2) === 0 ? 8 : 400));
      changed.fill(1, from, to);
      (i % 3 === 0 ? other : ranges).add(from, to);
    }
    ranges.addAll(other);
    const covered = new Uint8Array(4096);
    let end = -1;
    for (const [from, to] of list(ranges)) {
      expect(from).toBeGreaterThan(end);
      expect(to).toBeGreaterThan(from);
      covered.fill(1, from, to);
      end = to;
    }
    expect(changed.every((byte, index) => byte <= (covered[index] as number))).toBe(true);
    expect(ranges.count).toBeLessThanOrEqual(8);
  }
});

it("lets the journal grow by what changed when zones are written in turns, not by all that lies between", async () => {
  const storage = memoryStorage();
  await createQcow2(storage, { size: 256 * MIB, zone: { mode: "host-managed", size: 32 * MIB } });
  const place = new MemoryJournal();
  const journal = new ChangeJournal(place);
  const device = await openQcow2(storage, { journal });
  if (!isZonedDevice(device)) throw new Error("the image is zoned");
  const data = new Uint8Array(64 * KIB).fill(5);
  const appendToEach = async (): Promise<void> => {
    for (let zone = 0; zone < 8; zone++) await device.append(zone * 32 * MIB, data);
    journal.commit();
  };
  await appendToEach();
  const before = place.bytes?.length as number;
  await appendToEach();
  // Eight mappings and eight pointers, each with a header of 16 bytes, and the counts of eight clusters.
  expect((place.bytes?.length as number) - before).toBeLessThan(512);
  await device.close();
});
