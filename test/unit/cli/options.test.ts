import { describe, expect, it } from "vitest";
import { allValues, isGiven, lastValue, type OptionSpec, parseArguments } from "../../../src/cli/options.js";

const SPECS: readonly OptionSpec[] = [
  { name: "format", short: "f", long: "format", value: true },
  { name: "output", long: "output", value: true },
  { name: "quiet", short: "q", long: "quiet" },
  { name: "force-share", short: "U", long: "force-share" },
  { name: "options", short: "o", value: true },
];

describe("parseArguments", () => {
  it("takes options before, between and behind the positionals", () => {
    const parsed = parseArguments(["-q", "a", "-f", "qcow2", "b", "--output", "json"], SPECS);
    expect(parsed.positionals).toEqual(["a", "b"]);
    expect([lastValue(parsed, "format"), lastValue(parsed, "output"), isGiven(parsed, "quiet")]).toEqual([
      "qcow2",
      "json",
      true,
    ]);
  });

  it.each([
    [["-fqcow2"], "format", "qcow2"],
    [["--format=qcow2"], "format", "qcow2"],
    [["--form", "qcow2"], "format", "qcow2"],
    [["-qUfraw"], "format", "raw"],
    [["--output="], "output", ""],
    [["-f", "-q"], "format", "-q"],
  ])("reads %j", (args, name, value) => {
    expect(lastValue(parseArguments(args, SPECS), name)).toBe(value);
  });

  it("keeps every value of an option that is repeated, and the last one wins", () => {
    const parsed = parseArguments(["-o", "a=1", "x", "-o", "b=2"], SPECS);
    expect(allValues(parsed, "options")).toEqual(["a=1", "b=2"]);
    expect(lastValue(parsed, "options")).toBe("b=2");
  });

  it("takes everything behind -- and a single dash for positionals", () => {
    expect(parseArguments(["-", "--", "-f", "--x"], SPECS).positionals).toEqual(["-", "-f", "--x"]);
  });

  it.each([
    [["-Z"], "unrecognized option '-Z'"],
    [["--bogus"], "unrecognized option '--bogus'"],
    [["--fo"], "unrecognized option '--fo'"],
    [["--quiet=yes"], "unrecognized option '--quiet=yes'"],
    [["-f"], "missing argument for option '-f'"],
    [["--output"], "missing argument for option '--output'"],
  ])("refuses %j", (args, message) => {
    expect(() => parseArguments(args, SPECS)).toThrow(message);
  });
});
