import { describe, expect, test } from "vitest";
import { FAULT_RULES, FaultRules } from "../../../../src/servers/control/fault-rules.js";

const READ = 0x02;
const WRITE = 0x01;
const at = (opcode: number, lba = 0, blocks = 1) => ({ opcode, lba, blocks });

describe("fault rules", () => {
  test("the first that fits decides", () => {
    const rules = new FaultRules();
    rules.add({ operation: "write", status: 0x280 });
    rules.add({ operation: "any", delay: 5 });
    expect(rules.inject(at(WRITE))).toEqual({ status: 0x280 });
    expect(rules.inject(at(READ))).toEqual({ delay: 5 });
  });

  test("a range is touched by commands that overlap it, from either side", () => {
    const rules = new FaultRules();
    rules.add({ operation: "read", status: 0x281, lba: 10, blocks: 5 });
    const touched = [at(READ, 9), at(READ, 9, 2), at(READ, 14), at(READ, 15), at(READ, 0, 100), at(WRITE, 12)];
    expect(touched.map((subject) => rules.inject(subject) !== undefined)).toEqual([
      false,
      true,
      true,
      false,
      true,
      false,
    ]);
  });

  test("a count runs out", () => {
    const rules = new FaultRules();
    rules.add({ operation: "any", status: 6, count: 2 });
    expect([1, 2, 3].map(() => rules.inject(at(READ))?.status)).toEqual([6, 6, undefined]);
    expect(rules.rules).toEqual([]);
  });

  test("there can be only so many, and all can be taken back", () => {
    const rules = new FaultRules();
    for (let i = 0; i < FAULT_RULES; i++) expect(rules.add({ operation: "read", delay: 1 })).toBe(true);
    expect(rules.add({ operation: "read", delay: 1 })).toBe(false);
    rules.clear();
    expect(rules.inject(at(READ))).toBeUndefined();
  });
});
