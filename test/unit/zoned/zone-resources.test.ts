import { describe, expect, it } from "vitest";
import { zoneIndex } from "../../../src/base/units.js";
import type { ZoneModel } from "../../../src/zoned/zone-model.js";
import { append, bringTo, CAPACITY, makeModel, operate, operateAll, refusal, write, ZONE } from "./zone-fixture.js";

/** States of the sequential zones 2..8. */
const states = (model: ZoneModel): string[] => model.report(2 * ZONE).map((zone) => zone.state);
const at = (zone: number): number => zone * ZONE;

describe("open limit", () => {
  it("the least recently written implicitly open zone is closed to make room", () => {
    const model = makeModel({ maxOpenZones: 2 });
    write(model, at(2), 512);
    write(model, at(3), 512);
    write(model, at(2) + 512, 512);
    write(model, at(4), 512);
    expect(states(model).slice(0, 3)).toEqual(["implicitly-open", "closed", "implicitly-open"]);
    expect(model.resources).toMatchObject({ open: 2, active: 3 });
  });

  it("an append counts as a write for the order of closing", () => {
    const model = makeModel({ maxOpenZones: 2 });
    write(model, at(2), 512);
    write(model, at(3), 512);
    append(model, at(2), 512);
    write(model, at(4), 512);
    expect(model.state(zoneIndex(3))).toBe("closed");
  });

  it("explicitly open zones are never closed for another: writes are refused, nothing crashes", () => {
    const model = makeModel({ maxOpenZones: 2 });
    operate(model, "open", at(2), 2 * ZONE);
    const error = refusal(() => write(model, at(4), 512), "ZONE_TOO_MANY_OPEN");
    expect(error.data).toMatchObject({ value: 2, limit: 2 });
    refusal(() => operate(model, "open", at(4)), "ZONE_TOO_MANY_OPEN");
    expect(states(model).slice(0, 3)).toEqual(["explicitly-open", "explicitly-open", "empty"]);
  });

  it("is asked when an empty zone is opened explicitly, and an implicit zone makes room", () => {
    const model = makeModel({ maxOpenZones: 1 });
    write(model, at(2), 512);
    operate(model, "open", at(3));
    expect(states(model).slice(0, 2)).toEqual(["closed", "explicitly-open"]);
    refusal(() => operate(model, "open", at(4)), "ZONE_TOO_MANY_OPEN");
  });

  it("alone, without an active limit, is enforced", () => {
    const model = makeModel({ maxOpenZones: 1, maxActiveZones: 0 });
    for (let zone = 2; zone < 8; zone += 1) write(model, at(zone), 512);
    expect(model.resources).toMatchObject({ open: 1, active: 6 });
  });

  it("is asked for a write that fills an empty zone, which holds nothing afterwards", () => {
    const model = makeModel({ maxOpenZones: 1 });
    operate(model, "open", at(2));
    refusal(() => write(model, at(3), CAPACITY), "ZONE_TOO_MANY_OPEN");
    operate(model, "close", at(2));
    write(model, at(3), CAPACITY);
    expect(model.resources).toMatchObject({ open: 0, active: 0 });
  });

  it("opening an explicitly open zone again takes nothing", () => {
    const model = makeModel({ maxOpenZones: 1 });
    operate(model, "open", at(2));
    operate(model, "open", at(2));
    expect(model.resources.open).toBe(1);
    operate(model, "close", at(2));
    expect(model.resources.open).toBe(0);
  });
});

describe("active limit", () => {
  it("is asked for a write to an empty zone", () => {
    const model = makeModel({ maxActiveZones: 2 });
    write(model, at(2), 512);
    write(model, at(3), 512);
    operate(model, "close", at(2), 2 * ZONE);
    const error = refusal(() => write(model, at(4), 512), "ZONE_TOO_MANY_ACTIVE");
    expect(error.message).toContain("2 zones are active and the limit is 2");
    write(model, at(2) + 512, 512);
  });

  it("is asked for a write that fills an empty zone at once", () => {
    const model = makeModel({ maxActiveZones: 1 });
    write(model, at(2), 512);
    refusal(() => write(model, at(3), CAPACITY), "ZONE_TOO_MANY_ACTIVE");
  });

  it("a refusal for want of an active resource closes no zone", () => {
    const model = makeModel({ maxActiveZones: 2, maxOpenZones: 2 });
    write(model, at(2), 512);
    write(model, at(3), 512);
    refusal(() => write(model, at(4), 512), "ZONE_TOO_MANY_ACTIVE");
    expect(states(model).slice(0, 3)).toEqual(["implicitly-open", "implicitly-open", "empty"]);
  });

  it("finish of an empty zone needs one for the moment, finish of a closed zone needs none", () => {
    const model = makeModel({ maxActiveZones: 1 });
    bringTo(model, "closed");
    refusal(() => operate(model, "finish", at(3)), "ZONE_TOO_MANY_ACTIVE");
    operate(model, "finish", at(2));
    expect(model.resources.active).toBe(0);
    operate(model, "finish", at(3));
    expect(states(model).slice(0, 2)).toEqual(["full", "full"]);
  });

  it("a closed zone that one write fills gives its resource back", () => {
    const model = makeModel({ maxActiveZones: 1 });
    bringTo(model, "closed");
    write(model, at(2) + 4096, CAPACITY - 4096);
    expect(model.resources.active).toBe(0);
    write(model, at(3), 512);
  });

  it("counts zones that were closed on disk from open on", () => {
    const writePointers = [0, ZONE, at(2) + 512, at(3) + 512, at(4), at(5), at(6), at(7), at(8)];
    const model = makeModel({ maxActiveZones: 2, writePointers });
    expect(states(model).slice(0, 3)).toEqual(["closed", "closed", "empty"]);
    refusal(() => write(model, at(4), 512), "ZONE_TOO_MANY_ACTIVE");
  });

  it("an image with more closed zones than the limit opens; they can be written and finished, none can be added", () => {
    const writePointers = [0, ZONE, at(2) + 512, at(3) + 512, at(4) + 512, at(5), at(6), at(7), at(8)];
    const model = makeModel({ maxActiveZones: 2, writePointers });
    expect(model.resources.active).toBe(3);
    write(model, at(2) + 512, 512);
    operate(model, "finish", at(3));
    refusal(() => write(model, at(5), 512), "ZONE_TOO_MANY_ACTIVE");
    operate(model, "reset", at(4));
    write(model, at(5), 512);
    expect(model.resources.active).toBe(2);
  });
});

describe("operations on ranges", () => {
  it("opening more zones than can be open changes nothing", () => {
    const model = makeModel({ maxOpenZones: 2 });
    write(model, at(7), 512);
    refusal(() => operate(model, "open", at(2), 3 * ZONE), "ZONE_TOO_MANY_OPEN");
    expect(new Set(states(model).slice(0, 5))).toEqual(new Set(["empty"]));
    expect(model.state(zoneIndex(7))).toBe("implicitly-open");
  });

  it("implicitly open zones inside the range are kept, those outside make room", () => {
    const model = makeModel({ maxOpenZones: 3 });
    write(model, at(2), 512);
    write(model, at(7), 512);
    write(model, at(3), 512);
    operate(model, "open", at(2), 3 * ZONE);
    expect(states(model).slice(0, 6)).toEqual([
      "explicitly-open",
      "explicitly-open",
      "explicitly-open",
      "empty",
      "empty",
      "closed",
    ]);
  });

  it("opening a range with a full zone in it changes nothing", () => {
    const model = makeModel();
    write(model, at(3), CAPACITY);
    refusal(() => operate(model, "open", at(2), 2 * ZONE), "ZONE_INVALID_TRANSITION");
    expect(model.state(zoneIndex(2))).toBe("empty");
  });

  it("finishing a range asks the active limit in zone order", () => {
    const model = makeModel({ maxActiveZones: 1 });
    write(model, at(2), 512);
    operate(model, "finish", at(2), 3 * ZONE);
    expect(states(model).slice(0, 3)).toEqual(["full", "full", "full"]);
    write(model, at(6), 512);
    refusal(() => operate(model, "finish", at(5), 2 * ZONE), "ZONE_TOO_MANY_ACTIVE");
    expect(states(model).slice(3, 5)).toEqual(["empty", "implicitly-open"]);
  });

  it("a reset skips the conventional zones of a range", () => {
    const model = makeModel();
    bringTo(model, "full");
    operate(model, "reset", 0, 4 * ZONE);
    expect(model.state(zoneIndex(2))).toBe("empty");
  });

  it("a reset of conventional zones only is refused", () => {
    refusal(() => operate(makeModel(), "reset", 0, 2 * ZONE), "ZONE_NOT_SEQUENTIAL");
  });

  it("a range with an offline zone changes nothing", () => {
    const model = makeModel();
    bringTo(model, "full", zoneIndex(2));
    bringTo(model, "offline", zoneIndex(3));
    refusal(() => operate(model, "reset", at(2), 2 * ZONE), "ZONE_OFFLINE");
    expect(model.state(zoneIndex(2))).toBe("full");
  });

  it.each([
    ["an offset inside a zone", at(2) + 512, ZONE],
    ["a length that ends inside a zone", at(2), ZONE + 512],
    ["length 0", at(2), 0],
  ])("%s is refused", (_name, offset, length) => {
    refusal(() => operate(makeModel(), "reset", offset, length), "ZONE_MISALIGNED");
  });

  it("a range past the end of the disk is refused", () => {
    refusal(() => operate(makeModel(), "reset", at(8), ZONE), "OUT_OF_RANGE");
  });
});

describe("operations on all zones", () => {
  it("reset-all empties every sequential zone that is not read-only or offline", () => {
    const model = makeModel();
    bringTo(model, "full", zoneIndex(2));
    bringTo(model, "offline", zoneIndex(3));
    bringTo(model, "closed", zoneIndex(4));
    operateAll(model, "reset");
    expect(states(model).slice(0, 3)).toEqual(["empty", "offline", "empty"]);
  });

  it("close-all closes open zones, open-all opens closed ones, finish-all leaves empty zones alone", () => {
    const model = makeModel();
    write(model, at(2), 512);
    operate(model, "open", at(3));
    write(model, at(3), 512);
    operateAll(model, "close");
    expect(states(model).slice(0, 3)).toEqual(["closed", "closed", "empty"]);
    operateAll(model, "open");
    expect(states(model).slice(0, 3)).toEqual(["explicitly-open", "explicitly-open", "empty"]);
    operateAll(model, "finish");
    expect(states(model).slice(0, 3)).toEqual(["full", "full", "empty"]);
  });

  it("open-all is refused whole when not all closed zones fit", () => {
    const model = makeModel({ maxOpenZones: 1 });
    write(model, at(2), 512);
    write(model, at(3), 512);
    operateAll(model, "close");
    refusal(() => operateAll(model, "open"), "ZONE_TOO_MANY_OPEN");
    expect(model.resources.open).toBe(0);
  });
});
