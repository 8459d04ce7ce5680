import { describe, expect, it } from "vitest";
import { isZcowError } from "../../../src/base/errors.js";
import type { ZoneWrite } from "../../../src/zoned/zone-flight.js";
import type { ZoneModel } from "../../../src/zoned/zone-model.js";
import { bringTo, CAPACITY, END, makeModel, operate, refusal, START, write, Z, ZONE } from "./zone-fixture.js";

function submit(model: ZoneModel, offset: number, length: number): ZoneWrite {
  const ticket = model.submitWrite(offset, length);
  if (ticket === undefined) throw new Error("not a sequential zone");
  return ticket;
}

/** Three writes of 512 bytes in flight. */
function three(model: ZoneModel): [ZoneWrite, ZoneWrite, ZoneWrite] {
  return [submit(model, START, 512), submit(model, START + 512, 512), submit(model, START + 1024, 512)];
}

const cause = new Error("the disk said no");

describe("writes in flight", () => {
  it("the pointer advances at submission, the committed pointer at completion", () => {
    const model = makeModel();
    const ticket = submit(model, START, 4096);
    expect([model.writePointer(Z), model.committedPointer(Z)]).toEqual([START + 4096, START]);
    expect(model.complete(ticket)).toBeUndefined();
    expect(model.committedPointer(Z)).toBe(START + 4096);
  });

  it("a write that completes alone costs no promise", () => {
    const model = makeModel();
    expect(model.complete(submit(model, START, 512))).toBeUndefined();
    expect(model.isBusy(Z, Z)).toBe(false);
  });

  it("completions in any order are acknowledged in pointer order", async () => {
    const model = makeModel();
    const [a, b, c] = three(model);
    const acknowledged: string[] = [];
    const waitC = Promise.resolve(model.complete(c)).then(() => acknowledged.push("c"));
    const waitB = Promise.resolve(model.complete(b)).then(() => acknowledged.push("b"));
    await Promise.resolve();
    expect(acknowledged).toEqual([]);
    expect(model.committedPointer(Z)).toBe(START);
    expect(model.complete(a)).toBeUndefined();
    expect(model.committedPointer(Z)).toBe(START + 1536);
    await Promise.all([waitB, waitC]);
    expect(acknowledged).toEqual(["b", "c"]);
  });

  it("the committed pointer stops at the first write that has not completed", () => {
    const model = makeModel();
    const [a, b, c] = three(model);
    void model.complete(c);
    void model.complete(a);
    expect(model.committedPointer(Z)).toBe(START + 512);
    void model.complete(b);
    expect(model.committedPointer(Z)).toBe(START + 1536);
  });

  it("two appends in flight never get the same offset", () => {
    const model = makeModel();
    const offsets = [1, 2, 3].map((n) => model.submitAppend(START, n * 512).offset);
    expect(offsets).toEqual([START, START + 512, START + 1536]);
  });

  it("writes and appends share one pointer", () => {
    const model = makeModel();
    submit(model, START, 512);
    expect(model.submitAppend(START, 512).offset).toBe(START + 512);
    refusal(() => model.submitWrite(START + 512, 512), "ZONE_INVALID_WRITE");
  });

  it("an append goes to the pointer, not to the start of the zone", () => {
    const model = makeModel();
    write(model, START, 4096);
    expect(model.submitAppend(START, 512).offset).toBe(START + 4096);
  });

  it("an append that fits the limit but not the zone is a boundary error", () => {
    const model = makeModel();
    write(model, START, 512);
    refusal(() => model.submitAppend(START, CAPACITY), "ZONE_BOUNDARY");
  });

  it("a ticket can be ended only once", () => {
    const model = makeModel();
    const ticket = submit(model, START, 512);
    void model.complete(ticket);
    expect(() => model.complete(ticket)).toThrow(TypeError);
    expect(() => model.fail(ticket, cause)).toThrow(TypeError);
  });
});

describe("a failed write", () => {
  it("is reported with its own error and takes the pointer back to where it started", () => {
    const model = makeModel();
    write(model, START, 512);
    const ticket = submit(model, START + 512, 1024);
    expect(model.fail(ticket, cause)).toBe(cause);
    expect(model.writePointer(Z)).toBe(START + 512);
    write(model, START + 512, 512);
  });

  it("fails every later write in flight, completed or not, with the cause", async () => {
    const model = makeModel();
    const [a, b, c] = three(model);
    const waitC = Promise.resolve(model.complete(c));
    expect(model.fail(a, cause)).toBe(cause);
    await expect(waitC).rejects.toMatchObject({ code: "ZONE_ABORTED", cause });
    const error = refusal(() => model.complete(b), "ZONE_ABORTED");
    expect(error.cause).toBe(cause);
    expect([model.writePointer(Z), model.committedPointer(Z)]).toEqual([START, START]);
  });

  it("keeps new writes out while an earlier one is in flight, too", () => {
    const model = makeModel();
    const [a, b, c] = three(model);
    model.fail(c, cause);
    refusal(() => model.submitWrite(START + 1024, 512), "ZONE_ABORTED");
    void model.complete(a);
    refusal(() => model.submitWrite(START + 1024, 512), "ZONE_ABORTED");
    void model.complete(b);
    write(model, START + 1024, 512);
  });

  it("leaves earlier writes in flight alone", () => {
    const model = makeModel();
    const [a, b, c] = three(model);
    model.fail(c, cause);
    expect(model.committedPointer(Z)).toBe(START);
    expect(model.writePointer(Z)).toBe(START + 1024);
    void model.complete(b);
    expect(model.complete(a)).toBeUndefined();
    expect(model.committedPointer(Z)).toBe(START + 1024);
  });

  it("of a write whose abandoned followers are in flight: the zone accepts nothing until they have ended", () => {
    const model = makeModel();
    const [a, b, c] = three(model);
    model.fail(a, cause);
    refusal(() => model.submitWrite(START, 512), "ZONE_ABORTED");
    refusal(() => model.submitAppend(START, 512), "ZONE_ABORTED");
    refusal(() => model.complete(b), "ZONE_ABORTED");
    refusal(() => model.submitWrite(START, 512), "ZONE_ABORTED");
    expect(isZcowError(model.fail(c, new Error("too")), "ZONE_ABORTED")).toBe(true);
    write(model, START, 512);
  });

  it("followed by the failure of an earlier one takes the pointer back further", () => {
    const model = makeModel();
    const [a, b, c] = three(model);
    model.fail(b, cause);
    model.fail(a, cause);
    expect(model.writePointer(Z)).toBe(START);
    expect(model.isBusy(Z, Z)).toBe(true);
    refusal(() => model.complete(c), "ZONE_ABORTED");
    expect(model.isBusy(Z, Z)).toBe(false);
  });

  it("in one zone does not touch another", () => {
    const model = makeModel();
    const other = submit(model, START + ZONE, 512);
    model.fail(submit(model, START, 512), cause);
    expect(model.complete(other)).toBeUndefined();
    expect(model.writePointer(model.geometry.indexOf(START + ZONE))).toBe(START + ZONE + 512);
  });

  it("that opened an empty zone leaves it empty, holding nothing", () => {
    const model = makeModel({ maxActiveZones: 1 });
    model.fail(submit(model, START, 512), cause);
    expect(model.state(Z)).toBe("empty");
    expect(model.resources).toMatchObject({ open: 0, active: 0 });
    write(model, START + ZONE, 512);
  });

  it("leaves an explicitly open zone explicitly open", () => {
    const model = makeModel();
    operate(model, "open", START);
    model.fail(submit(model, START, 512), cause);
    expect(model.state(Z)).toBe("explicitly-open");
  });

  it("of a zone that was closed implicitly meanwhile leaves it empty, not closed", () => {
    const model = makeModel({ maxOpenZones: 1 });
    const ticket = submit(model, START, 512);
    write(model, START + ZONE, 512);
    expect(model.state(Z)).toBe("closed");
    model.fail(ticket, cause);
    expect(model.state(Z)).toBe("empty");
    expect(model.resources).toMatchObject({ open: 1, active: 1 });
  });

  it("does not make the zone dirty", () => {
    const model = makeModel();
    model.fail(submit(model, START, 512), cause);
    expect(model.hasDirty).toBe(false);
  });
});

describe("the write that fills a zone", () => {
  it("keeps its resources until it completes, and no write is accepted meanwhile", () => {
    const model = makeModel({ maxActiveZones: 1 });
    const ticket = submit(model, START, CAPACITY);
    expect(model.state(Z)).toBe("implicitly-open");
    refusal(() => model.submitWrite(END, 512), "ZONE_FULL");
    refusal(() => model.submitWrite(START + ZONE, 512), "ZONE_TOO_MANY_ACTIVE");
    void model.complete(ticket);
    expect(model.state(Z)).toBe("full");
    write(model, START + ZONE, 512);
  });

  it("when it fails, the zone is as before", () => {
    const model = makeModel();
    bringTo(model, "explicitly-open");
    const ticket = submit(model, START + 4096, CAPACITY - 4096);
    model.fail(ticket, cause);
    expect(model.state(Z)).toBe("explicitly-open");
    expect(model.writePointer(Z)).toBe(START + 4096);
    expect(model.resources).toMatchObject({ open: 1, active: 1 });
  });

  it("the zone is full only when all its writes are acknowledged", () => {
    const model = makeModel();
    const first = submit(model, START, 512);
    const last = submit(model, START + 512, CAPACITY - 512);
    void model.complete(last);
    expect(model.state(Z)).toBe("implicitly-open");
    void model.complete(first);
    expect(model.state(Z)).toBe("full");
    expect(model.resources).toMatchObject({ open: 0, active: 0 });
  });

  it("may be closed implicitly meanwhile, and still becomes full", () => {
    const model = makeModel({ maxOpenZones: 1 });
    const ticket = submit(model, START, CAPACITY);
    write(model, START + ZONE, 512);
    expect(model.state(Z)).toBe("closed");
    void model.complete(ticket);
    expect(model.state(Z)).toBe("full");
    expect(model.resources).toMatchObject({ open: 1, active: 1 });
  });
});

describe("zones to make durable", () => {
  it("are named once, and again after new writes", () => {
    const model = makeModel();
    write(model, START, 512);
    write(model, START + 512, 512);
    expect([...model.takeDirty()]).toEqual([Z]);
    expect(model.hasDirty).toBe(false);
    write(model, START + 1024, 512);
    expect([...model.takeDirty()]).toEqual([Z]);
  });

  it("can be given back", () => {
    const model = makeModel();
    write(model, START, 512);
    model.markDirty(model.takeDirty());
    expect([...model.takeDirty()]).toEqual([Z]);
  });

  it("do not include a zone whose write has not completed", () => {
    const model = makeModel();
    submit(model, START, 512);
    expect(model.hasDirty).toBe(false);
  });
});
