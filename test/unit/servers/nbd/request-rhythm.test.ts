import { describe, expect, it } from "vitest";
import { RequestRhythm } from "../../../../src/servers/nbd/request-rhythm.js";

const notes = (rhythm: RequestRhythm, reader: object, count: number): void => {
  for (let index = 0; index < count; index++) rhythm.note(reader);
};

describe("whether to wait for the next request", () => {
  const [one, other] = [{}, {}];

  it("waits for a connection that was the only one for a while, until another has something to say", () => {
    const rhythm = new RequestRhythm();
    notes(rhythm, one, 10);
    expect(rhythm.isSolo(one)).toBe(false);
    notes(rhythm, one, 10);
    expect(rhythm.isSolo(one)).toBe(true);
    expect(rhythm.isSolo(other)).toBe(false);
    rhythm.note(other);
    expect(rhythm.isSolo(one)).toBe(false);
  });

  it("stops waiting for a client that never comes in time, and tries again much later", () => {
    const rhythm = new RequestRhythm();
    notes(rhythm, one, 20);
    for (let index = 0; index < 15; index++) rhythm.fruitless();
    rhythm.fruitful();
    for (let index = 0; index < 15; index++) rhythm.fruitless();
    expect(rhythm.isSolo(one)).toBe(true);
    rhythm.fruitless();
    expect(rhythm.isSolo(one)).toBe(false);
    notes(rhythm, one, 255);
    expect(rhythm.isSolo(one)).toBe(false);
    rhythm.note(one);
    expect(rhythm.isSolo(one)).toBe(true);
  });
});
