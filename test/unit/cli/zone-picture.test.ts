import { describe, expect, it } from "vitest";
import { zonePicture } from "../../../src/cli/zone-picture.js";
import type { ZoneDescriptor, ZoneState } from "../../../src/zoned/zone-state.js";

const CAPACITY = 8 * 1024 * 1024;

function zone(index: number, state: ZoneState, written = 0): ZoneDescriptor {
  const start = index * CAPACITY;
  const conventional = state === "not-wp";
  return {
    index,
    start,
    length: CAPACITY,
    capacity: CAPACITY,
    writePointer: start + written,
    state,
    type: conventional ? "conventional" : "sequential-write-required",
  };
}

const plain = { width: 80, rich: false };

describe("zonePicture", () => {
  it("draws one letter per zone in plain text, and explains the letters that are there", () => {
    const states: ZoneState[] = [
      "not-wp",
      "empty",
      "implicitly-open",
      "explicitly-open",
      "closed",
      "full",
      "read-only",
      "offline",
    ];
    expect(
      zonePicture(
        states.map((state, index) => zone(index, state)),
        plain,
      ),
    ).toBe(
      " 0 =.IECFRX\n\n= conventional  . empty  F full  C closed  I implicitly-open  E explicitly-open  R read-only  X offline\n",
    );
  });

  it("has no control characters nor anything but ASCII in plain text", () => {
    const picture = zonePicture([zone(0, "not-wp"), zone(1, "closed", 4096), zone(2, "full", CAPACITY)], plain);
    expect(picture).toMatch(/^[\n\x20-\x7e]*$/);
  });

  it("shows state as colour and fill as height on a terminal", () => {
    const zones = [0, 512, CAPACITY / 2, CAPACITY].map((written, index) =>
      zone(index, written === 0 ? "empty" : written === CAPACITY ? "full" : "closed", written),
    );
    const [line] = zonePicture(zones, { width: 80, rich: true }).split("\n");
    expect(line).toBe(" 0 \u001b[90m·\u001b[0m\u001b[33m▁\u001b[0m\u001b[33m▅\u001b[0m\u001b[34m█\u001b[0m");
  });

  it("wraps to the width of the terminal, each line starting with the number of its first zone", () => {
    const zones = Array.from({ length: 40 }, (_, index) => zone(index, "empty"));
    expect(zonePicture(zones, { width: 24, rich: false }).split("\n").slice(0, 3)).toEqual([
      `  0 ${".".repeat(16)}`,
      ` 16 ${".".repeat(16)}`,
      ` 32 ${".".repeat(8)}`,
    ]);
  });

  it("lets a cell stand for several zones when there are too many, and keeps the rare states in sight", () => {
    const zones = Array.from({ length: 100_000 }, (_, index) => zone(index, index === 54_321 ? "offline" : "empty"));
    const picture = zonePicture(zones, plain);
    expect(picture.split("\n").length).toBeLessThan(24);
    expect(picture).toContain("X");
    expect(picture).toMatch(/one cell is \d+ zones\n$/);
  });
});
