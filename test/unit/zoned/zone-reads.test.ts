import { describe, expect, it } from "vitest";
import { zoneIndex } from "../../../src/base/units.js";
import { isAllData, readRuns, requireReadable } from "../../../src/zoned/zone-reads.js";
import { bringTo, CAPACITY, makeModel, operate, refusal, START, write, Z, ZONE } from "./zone-fixture.js";

describe("reads", () => {
  it("see data below the pointer and zeros above it", () => {
    const model = makeModel();
    write(model, START, 4096);
    expect(isAllData(model, START + 512, 3584)).toBe(true);
    expect(isAllData(model, START + 512, 4096)).toBe(false);
    expect([...readRuns(model, START + 512, 8192)]).toEqual([
      { offset: START + 512, length: 3584, data: true },
      { offset: START + 4096, length: 4608, data: false },
    ]);
  });

  it("see zeros between capacity and zone size, in full zones too", () => {
    const model = makeModel();
    write(model, START, CAPACITY);
    expect([...readRuns(model, START, ZONE)]).toEqual([
      { offset: START, length: CAPACITY, data: true },
      { offset: START + CAPACITY, length: ZONE - CAPACITY, data: false },
    ]);
  });

  it("see conventional zones whole, and merge neighbours of one kind", () => {
    const model = makeModel();
    write(model, START, 512);
    expect([...readRuns(model, 0, 5 * ZONE)]).toEqual([
      { offset: 0, length: START + 512, data: true },
      { offset: START + 512, length: 3 * ZONE - 512, data: false },
    ]);
  });

  it("do not see writes in flight", () => {
    const model = makeModel();
    write(model, START, 512);
    model.submitWrite(START + 512, 512);
    expect(isAllData(model, START, 1024)).toBe(false);
    expect(isAllData(model, START, 512)).toBe(true);
  });

  it("see zeros after a reset", () => {
    const model = makeModel();
    bringTo(model, "full");
    operate(model, "reset", START);
    expect([...readRuns(model, START, ZONE)]).toEqual([{ offset: START, length: ZONE, data: false }]);
  });

  it("of nothing have no runs", () => {
    expect([...readRuns(makeModel(), START, 0)]).toEqual([]);
  });

  it("of an offline zone fail, of a read-only zone do not", () => {
    const model = makeModel();
    bringTo(model, "offline");
    bringTo(model, "read-only", zoneIndex(3));
    refusal(() => requireReadable(model, START - 512, 1024), "ZONE_OFFLINE");
    requireReadable(model, START - 512, 512);
    requireReadable(model, START + ZONE, 512);
    model.force(Z, "online");
    requireReadable(model, START, 2 * ZONE);
  });
});
