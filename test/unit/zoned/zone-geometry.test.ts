import { describe, expect, it } from "vitest";
import { GiB, zoneIndex } from "../../../src/base/units.js";
import { makeModel, operate, refusal, write, ZONE } from "./zone-fixture.js";

describe("a short last zone", () => {
  const last = zoneIndex(8);
  const start = 8 * ZONE;
  const size = 12 * 1024;

  it("is reported with the length and capacity it has", () => {
    expect(makeModel().report(start)).toEqual([
      {
        index: 8,
        start,
        length: size,
        capacity: size,
        writePointer: start,
        state: "empty",
        type: "sequential-write-required",
      },
    ]);
  });

  it("finish stops at the end of the disk", () => {
    const model = makeModel();
    operate(model, "finish", start, size);
    expect(model.writePointer(last)).toBe(start + size);
    expect(model.state(last)).toBe("full");
  });

  it("a write to the end of the disk fills it, one past it is refused", () => {
    const model = makeModel();
    refusal(() => model.submitWrite(start, size + 512), "ZONE_BOUNDARY");
    write(model, start, size);
    expect(model.state(last)).toBe("full");
  });

  it("is reset by its own length, alone and in a range", () => {
    const model = makeModel();
    write(model, start, size);
    operate(model, "reset", start, size);
    expect(model.state(last)).toBe("empty");
    write(model, start, 512);
    write(model, 7 * ZONE, 512);
    operate(model, "reset", 7 * ZONE, ZONE + size);
    expect([model.state(zoneIndex(7)), model.state(last)]).toEqual(["empty", "empty"]);
  });

  it("that is longer than the capacity keeps the gap", () => {
    const model = makeModel({ diskSize: 8 * ZONE + 50 * 1024 });
    expect(model.report(start)[0]).toMatchObject({ length: 50 * 1024, capacity: 40 * 1024 });
  });
});

describe("a capacity below the zone size", () => {
  it("is reported as it is, and is where the zone is full, power of two or not", () => {
    const model = makeModel({ zoneCapacity: 5 * 512 });
    expect(model.report(2 * ZONE, 1)[0]).toMatchObject({ length: ZONE, capacity: 2560 });
    write(model, 2 * ZONE, 2048);
    expect(model.state(zoneIndex(2))).toBe("implicitly-open");
    write(model, 2 * ZONE + 2048, 512);
    expect(model.state(zoneIndex(2))).toBe("full");
  });
});

describe("zones of 2 GiB and more", () => {
  it("keep their positions whole through write, finish and reset", () => {
    const zoneSize = 4 * GiB;
    const model = makeModel({ zoneSize, zoneCapacity: zoneSize, diskSize: 5 * zoneSize });
    const start = 4 * zoneSize;
    const zone = zoneIndex(4);
    write(model, start, 3 * GiB);
    expect(model.writePointer(zone)).toBe(start + 3 * GiB);
    operate(model, "finish", start, zoneSize);
    expect(model.writePointer(zone)).toBe(5 * zoneSize);
    operate(model, "reset", 2 * zoneSize, 3 * zoneSize);
    expect(model.writePointer(zone)).toBe(start);
  });
});

describe("requests that are not whole sectors", () => {
  it("leave no odd pointer behind", () => {
    const model = makeModel();
    refusal(() => model.submitWrite(2 * ZONE, 100), "ZONE_MISALIGNED");
    refusal(() => model.submitAppend(2 * ZONE, 700), "ZONE_MISALIGNED");
    refusal(() => model.submitWrite(2 * ZONE, 0), "ZONE_MISALIGNED");
    expect(model.writePointer(zoneIndex(2))).toBe(2 * ZONE);
  });

  it("an append must name the start of a zone", () => {
    refusal(() => makeModel().submitAppend(2 * ZONE + 512, 512), "ZONE_MISALIGNED");
  });
});

describe("append limit", () => {
  it("is enforced in bytes", () => {
    const model = makeModel({ maxAppendBytes: 1024 });
    expect(model.submitAppend(2 * ZONE, 1024).offset).toBe(2 * ZONE);
    const error = refusal(() => model.submitAppend(2 * ZONE, 1536), "ZONE_APPEND_TOO_LARGE");
    expect(error.data).toMatchObject({ value: 1536, limit: 1024 });
    expect(error.message).toContain("append of 1536 bytes is longer than the largest append, 1024 bytes");
  });
});

describe("error texts", () => {
  it("name the write and the pointer the right way round", () => {
    const error = refusal(() => makeModel().submitWrite(2 * ZONE + 512, 512), "ZONE_INVALID_WRITE");
    expect(error.message).toBe("Zone 2: write at 131584 does not start at the write pointer 131072");
    expect(error.data).toMatchObject({ value: 131_584, limit: 131_072 });
  });

  it("name the end of the write and the end of the zone the right way round", () => {
    const model = makeModel();
    const error = refusal(() => model.submitWrite(2 * ZONE, 48 * 1024), "ZONE_BOUNDARY");
    expect(error.message).toContain("write of 49152 bytes at 131072 ends at 180224, past 172032");
  });
});

describe("report", () => {
  it("starts at the zone that holds the offset and gives at most as many as asked", () => {
    const model = makeModel();
    expect(model.report(3 * ZONE + 512, 2).map((zone) => zone.index)).toEqual([3, 4]);
    expect(model.report().length).toBe(9);
    expect(model.report(0, 0)).toEqual([]);
  });

  it("refuses an offset off the disk", () => {
    const model = makeModel();
    refusal(() => model.report(9 * ZONE), "OUT_OF_RANGE");
    refusal(() => model.report(-1), "OUT_OF_RANGE");
  });
});
