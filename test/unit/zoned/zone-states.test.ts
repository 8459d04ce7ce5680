import { describe, expect, it } from "vitest";
import type { ErrorCode } from "../../../src/base/error-codes.js";
import type { ZoneModel } from "../../../src/zoned/zone-model.js";
import { ZONE_CONDITION, type ZoneState } from "../../../src/zoned/zone-state.js";
import { append, bringTo, CAPACITY, END, makeModel, operate, refusal, START, write, Z, ZONE } from "./zone-fixture.js";

/** What an operation on a zone does, by the state it finds: the state after it, or the refusal. */
type Row = Readonly<Record<"empty" | "implicitly-open" | "explicitly-open" | "closed" | "full", ZoneState | ErrorCode>>;

const wp = (model: ZoneModel): number => model.writePointer(Z);

const ROWS: readonly (readonly [string, (model: ZoneModel) => void, Row])[] = [
  [
    "a write at the pointer that ends below the end",
    (model) => write(model, wp(model), 512),
    {
      empty: "implicitly-open",
      "implicitly-open": "implicitly-open",
      "explicitly-open": "explicitly-open",
      closed: "implicitly-open",
      full: "ZONE_FULL",
    },
  ],
  [
    "an append that ends below the end",
    (model) => append(model, START, 512),
    {
      empty: "implicitly-open",
      "implicitly-open": "implicitly-open",
      "explicitly-open": "explicitly-open",
      closed: "implicitly-open",
      full: "ZONE_FULL",
    },
  ],
  [
    "a write that ends at the end",
    (model) => write(model, wp(model), END - wp(model) || 512),
    { empty: "full", "implicitly-open": "full", "explicitly-open": "full", closed: "full", full: "ZONE_FULL" },
  ],
  [
    "an append that ends at the end",
    (model) => append(model, START, END - wp(model) || 512),
    { empty: "full", "implicitly-open": "full", "explicitly-open": "full", closed: "full", full: "ZONE_FULL" },
  ],
  [
    "a write past the pointer",
    (model) => write(model, START + 8192, 512),
    {
      empty: "ZONE_INVALID_WRITE",
      "implicitly-open": "ZONE_INVALID_WRITE",
      "explicitly-open": "ZONE_INVALID_WRITE",
      closed: "ZONE_INVALID_WRITE",
      full: "ZONE_FULL",
    },
  ],
  [
    "a write past the end",
    (model) => write(model, wp(model), CAPACITY + 512),
    {
      empty: "ZONE_BOUNDARY",
      "implicitly-open": "ZONE_BOUNDARY",
      "explicitly-open": "ZONE_BOUNDARY",
      closed: "ZONE_BOUNDARY",
      full: "ZONE_FULL",
    },
  ],
  [
    "an append past the end",
    (model) => append(model, START, CAPACITY + 512),
    {
      empty: "ZONE_APPEND_TOO_LARGE",
      "implicitly-open": "ZONE_APPEND_TOO_LARGE",
      "explicitly-open": "ZONE_APPEND_TOO_LARGE",
      closed: "ZONE_APPEND_TOO_LARGE",
      full: "ZONE_APPEND_TOO_LARGE",
    },
  ],
  [
    "open",
    (model) => operate(model, "open", START),
    {
      empty: "explicitly-open",
      "implicitly-open": "explicitly-open",
      "explicitly-open": "explicitly-open",
      closed: "explicitly-open",
      full: "ZONE_INVALID_TRANSITION",
    },
  ],
  [
    "close",
    (model) => operate(model, "close", START),
    { empty: "empty", "implicitly-open": "closed", "explicitly-open": "closed", closed: "closed", full: "full" },
  ],
  [
    "finish",
    (model) => operate(model, "finish", START),
    { empty: "full", "implicitly-open": "full", "explicitly-open": "full", closed: "full", full: "full" },
  ],
  [
    "reset",
    (model) => operate(model, "reset", START),
    { empty: "empty", "implicitly-open": "empty", "explicitly-open": "empty", closed: "empty", full: "empty" },
  ],
];

const ACTIVE: readonly ZoneState[] = ["implicitly-open", "explicitly-open", "closed"];
const OPEN: readonly ZoneState[] = ["implicitly-open", "explicitly-open"];

describe.each(ROWS)("%s", (_name, action, row) => {
  it.each(Object.entries(row))("on a zone that is %s: %s", (before, outcome) => {
    const model = makeModel();
    bringTo(model, before as ZoneState);
    const pointerBefore = wp(model);
    if (outcome in ZONE_CONDITION) {
      action(model);
      expect(model.state(Z)).toBe(outcome);
      if (outcome === "full") expect(wp(model)).toBe(END);
      if (outcome === "empty") expect(wp(model)).toBe(START);
    } else {
      refusal(() => action(model), outcome as ErrorCode);
      expect(model.state(Z)).toBe(before);
      expect(wp(model)).toBe(pointerBefore);
    }
    expect(model.committedPointer(Z)).toBe(wp(model));
    expect(model.resources.open).toBe(OPEN.includes(model.state(Z)) ? 1 : 0);
    expect(model.resources.active).toBe(ACTIVE.includes(model.state(Z)) ? 1 : 0);
  });
});

describe("close", () => {
  it("of an explicitly open zone without data makes it empty", () => {
    const model = makeModel();
    operate(model, "open", START);
    operate(model, "close", START);
    expect(model.state(Z)).toBe("empty");
    expect(model.resources.active).toBe(0);
  });
});

describe("conventional zones", () => {
  it("take writes anywhere, across zones, and have no pointer", () => {
    const model = makeModel();
    expect(model.submitWrite(512, 1024)).toBeUndefined();
    expect(model.submitWrite(0, 512)).toBeUndefined();
    expect(model.submitWrite(60 * 1024, 8192)).toBeUndefined();
    expect(model.report(0, 1)[0]).toMatchObject({ state: "not-wp", type: "conventional", writePointer: 0 });
  });

  it("refuse append", () => {
    refusal(() => makeModel().submitAppend(0, 512), "ZONE_NOT_SEQUENTIAL");
  });

  it.each(["open", "close", "finish", "reset"] as const)("refuse %s", (operation) => {
    refusal(() => operate(makeModel(), operation, 0), "ZONE_NOT_SEQUENTIAL");
  });

  it("a write may not run into a sequential zone, even one whose pointer is at its start", () => {
    const error = refusal(() => makeModel().submitWrite(START - 512, 1024), "ZONE_BOUNDARY");
    expect(error.data.limit).toBe(START);
  });
});

describe("read-only and offline zones", () => {
  const cases = (["read-only", "offline"] as const).flatMap((state) =>
    (["open", "close", "finish", "reset", "write", "append"] as const).map((operation) => [state, operation] as const),
  );
  it.each(cases)("a %s zone refuses %s with its own code", (state, operation) => {
    const model = makeModel();
    bringTo(model, state);
    const code = state === "offline" ? "ZONE_OFFLINE" : "ZONE_READ_ONLY";
    refusal(() => {
      if (operation === "write") return write(model, wp(model), 512);
      if (operation === "append") return append(model, START, 512);
      return operate(model, operation, START);
    }, code);
    expect(model.state(Z)).toBe(state);
  });

  it("hold no resources, and get the state back that their pointer implies", () => {
    const model = makeModel({ maxActiveZones: 1 });
    bringTo(model, "explicitly-open");
    model.force(Z, "offline");
    expect(model.resources).toMatchObject({ open: 0, active: 0 });
    model.force(Z, "read-only");
    model.force(Z, "online");
    expect(model.state(Z)).toBe("closed");
    expect(model.resources).toMatchObject({ open: 0, active: 1 });
  });

  it("coming back closed needs a free active resource", () => {
    const model = makeModel({ maxActiveZones: 1 });
    bringTo(model, "offline");
    write(model, START + ZONE, 512);
    refusal(() => model.force(Z, "online"), "ZONE_TOO_MANY_ACTIVE");
    expect(model.state(Z)).toBe("offline");
  });

  it("a conventional zone can be read-only, and online again", () => {
    const model = makeModel();
    const first = model.geometry.indexOf(0);
    model.force(first, "read-only");
    refusal(() => model.submitWrite(512, 512), "ZONE_READ_ONLY");
    model.force(first, "online");
    expect(model.state(first)).toBe("not-wp");
  });

  it("a write over several conventional zones is refused when one of them is offline", () => {
    const model = makeModel();
    model.force(model.geometry.indexOf(ZONE), "offline");
    refusal(() => model.submitWrite(60 * 1024, 8192), "ZONE_OFFLINE");
  });
});
