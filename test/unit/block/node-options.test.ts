import { describe, expect, it } from "vitest";
import { NodeOptions } from "../../../src/block/node-options.js";

describe("NodeOptions", () => {
  it("takes JSON apart into names with dots", () => {
    const options = NodeOptions.ofJson(
      '{"driver":"qcow2","file":{"driver":"file","x":[{"a":1},{"a":true}]},"backing":null}',
    );
    expect([...options.left]).toEqual([
      ["driver", "qcow2"],
      ["file.driver", "file"],
      ["file.x.0.a", "1"],
      ["file.x.1.a", "on"],
      ["backing", ""],
    ]);
  });

  it("gives children and lists, each option once", () => {
    const options = NodeOptions.ofJson('{"file":{"x":[{"a":1},{"a":2}],"y":"z"}}');
    const file = options.takeChild("file");
    expect(file?.takeList("x").map((element) => element.take("a"))).toEqual(["1", "2"]);
    expect([file?.take("y"), file?.take("y"), options.takeChild("file")]).toEqual(["z", undefined, undefined]);
  });

  it("reads switches and numbers, and refuses what is neither", () => {
    const options = new NodeOptions([
      ["a", "on"],
      ["b", "maybe"],
      ["c", "12"],
      ["d", "x"],
    ]);
    const number = (text: string): number | undefined => (/^\d+$/.test(text) ? Number(text) : undefined);
    expect([options.takeSwitch("a"), options.takeSwitch("z"), options.takeNumber("c", number)]).toEqual([
      true,
      undefined,
      12,
    ]);
    expect(() => options.takeSwitch("b")).toThrow("option b: 'maybe'");
    expect(() => options.takeNumber("d", number)).toThrow("option d: 'x'");
  });

  it("refuses what nobody took", () => {
    const options = new NodeOptions([["bogus", "1"]]);
    expect(() => options.refuseLeft("qcow2", "format")).toThrow(expect.objectContaining({ code: "UNKNOWN_OPTION" }));
    options.take("bogus");
    expect(() => options.refuseLeft("qcow2", "format")).not.toThrow();
  });

  it.each([
    "{",
    "[]",
    "7",
    "null",
    `${'{"a":'.repeat(20)}1${"}".repeat(20)}`,
    JSON.stringify({ list: Array.from({ length: 1001 }, () => 1) }),
  ])("refuses a description like %.30s", (text) => {
    expect(() => NodeOptions.ofJson(text)).toThrow(expect.objectContaining({ code: "FILE_REFERENCE" }));
  });
});
