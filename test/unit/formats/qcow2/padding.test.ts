import { expect, it } from "vitest";
import { Padding } from "../../../../src/formats/qcow2/padding.js";

const ones = (length: number): Uint8Array => new Uint8Array(length).fill(1);

it("puts zeros around data, whatever the memory held before", () => {
  const padding = new Padding();
  const first = padding.around(ones(8), 0, 8);
  padding.giveBack(first);
  const second = padding.around(Uint8Array.of(7, 7), 3, 8);
  expect(second.buffer).toBe(first.buffer);
  expect([...second]).toEqual([0, 0, 0, 7, 7, 0, 0, 0]);
});

it("never lends the same memory twice at a time, and takes larger memory for longer data", () => {
  const padding = new Padding();
  const first = padding.around(ones(4), 0, 4);
  expect(padding.around(ones(4), 0, 4).buffer).not.toBe(first.buffer);
  padding.giveBack(first);
  const longer = padding.around(ones(1), 8, 9);
  expect([...longer]).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 1]);
  padding.giveBack(longer);
  expect(padding.around(ones(2), 1, 4)).toEqual(Uint8Array.of(0, 1, 1, 0));
});
