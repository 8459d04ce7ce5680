import { describe, expect, it } from "vitest";
import type { CommandEntry, CommandTable } from "../../../src/cli/command-table.js";
import type { CommandContext } from "../../../src/cli/context.js";
import { helpText } from "../../../src/cli/help-text.js";
import { type CommandManual, optionsOf } from "../../../src/cli/manual.js";
import { COMMANDS, runProgram } from "../../../src/cli/program.js";

interface Documented {
  readonly name: string;
  readonly entry: CommandEntry;
  readonly manual: CommandManual;
}

async function documented(table: CommandTable, before = ""): Promise<Documented[]> {
  const found: Documented[] = [];
  for (const [word, entry] of Object.entries(table)) {
    const name = `${before}${word}`;
    found.push({ name, entry, manual: await entry.manual() });
    if (entry.commands !== undefined) found.push(...(await documented(await entry.commands(), `${name} `)));
  }
  return found;
}

const ALL = await documented(COMMANDS);
const silent = { out: () => undefined, err: () => undefined };
const context: CommandContext = { program: "zcow", standIn: false, output: silent };

describe.each(ALL)("the manual of $name", ({ name, manual }) => {
  it("has the name that calls the command", () => {
    expect(manual.name).toBe(name);
  });

  it("gives no letter and no word to two options", () => {
    const options = optionsOf(manual);
    for (const key of ["short", "long"] as const) {
      const given = options.map((option) => option[key]).filter((word) => word !== undefined);
      expect(given.toSorted()).toEqual([...new Set(given)].toSorted());
    }
  });

  it("is what --help prints", async () => {
    let out = "";
    const status = await runProgram("zcow", [...name.split(" "), "--help"], {
      ...silent,
      out: (text) => void (out += text),
    });
    expect([status, out]).toEqual([0, helpText(manual, context)]);
  });
});

describe("help", () => {
  const manual: CommandManual = {
    name: "show",
    synopsis: ["[-q] FILE", "--all"],
    about: ["Shows it."],
    options: [
      { name: "quiet", short: "q", long: "quiet", about: "say nothing" },
      { name: "way", long: "way", value: "WAY", about: "which way" },
      { name: "letter", short: "x", value: "X", about: `${"word ".repeat(30)}end` },
      { name: "long", long: "a-word-that-is-longer-than-the-column", about: "on its own line" },
      { name: "silent", short: "s" },
    ],
    notes: ["That is all."],
    exitStatus: "0 shown.",
    examples: ["show -q x"],
  };

  it("has forms, what it does, options below each other, notes, exit status and examples", () => {
    expect(helpText(manual, context)).toBe(`usage: zcow show [-q] FILE
       zcow show --all

Shows it.

  -q, --quiet    say nothing
      --way WAY  which way
  -x X           ${"word ".repeat(15)}word
                 ${"word ".repeat(14)}end
      --a-word-that-is-longer-than-the-column
                 on its own line

That is all.

Exit status: 0 shown.

Examples:
  zcow show -q x
`);
  });

  it("names the tool that it stands in for", () => {
    const standIn: CommandContext = { program: "qemu-io", standIn: true, output: silent };
    expect(helpText(manual, standIn, "qemu-io")).toMatch(/^usage: qemu-io \[-q\] FILE\n/);
  });
});
