import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { describeWithStock, runTool } from "../support/stock-tools.js";

/**
 * What the stock tools offer, by their own help, is used in some line of the suites that run them beside ours. It cannot tell whether the
 * suite looks at the right things, but nothing can be forgotten.
 */

const ROOT = join(import.meta.dirname, "..");
const FOLDERS = ["e2e", "interop", "support"];

interface Line {
  readonly text: string;
  /** The command that the file is about. */
  readonly subject: string | undefined;
}

function testLines(): Line[] {
  return FOLDERS.flatMap((folder) =>
    readdirSync(join(ROOT, folder))
      .filter((name) => name.endsWith(".ts") && !name.startsWith("option-inventory"))
      .flatMap((name) => {
        const subject = /^(\w+)-command/.exec(name)?.[1];
        return readFileSync(join(ROOT, folder, name), "utf8")
          .split("\n")
          .map((text) => ({ text, subject }));
      }),
  );
}

async function helpOf(tool: string, ...args: string[]): Promise<string> {
  return (await runTool(tool, args)).stdout;
}

/** Commands with their options, as `-x` or `--name`. */
function imageCommands(help: string): [command: string, options: string[]][] {
  const syntax = help.slice(help.indexOf("Command syntax:"), help.indexOf("Command parameters:"));
  return [...syntax.matchAll(/^ {2}(\w+) (.*)$/gm)].map(([, command = "", usage = ""]) => [
    command,
    [...new Set([...usage.matchAll(/(?<![\w-])--?[A-Za-z][\w-]*/g)].map(([option]) => option))],
  ]);
}

/** Commands with the letters of their options. */
function ioCommands(help: string): [command: string, letters: string[]][] {
  return [...help.matchAll(/^(\w+)(.*?) -- /gm)].map(([, command = "", usage = ""]) => {
    const groups = [...usage.matchAll(/-(\w+)/g)].map(([, letters = ""]) => letters);
    return [command, [...new Set(groups.join(""))]];
  });
}

describeWithStock("every option of the stock tools is used in a test beside them", () => {
  let lines: Line[];

  beforeAll(() => {
    lines = testLines();
  });

  function isUsed(command: string, option: RegExp): boolean {
    const word = new RegExp(`\\b${command}\\b(.*)`);
    return lines.some(({ text, subject }) => {
      const rest = word.exec(text)?.[1] ?? (subject === command ? text : "");
      return option.test(rest);
    });
  }

  it("of qemu-img", async () => {
    const commands = imageCommands(await helpOf("qemu-img", "--help"));
    expect(commands.length).toBeGreaterThan(14);
    const missing = commands.flatMap(([command, options]) =>
      options
        .filter((option) => !isUsed(command, new RegExp(`(?<![\\w-])${option}(?![\\w-])`)))
        .map((option) => `${command} ${option}`),
    );
    expect(missing).toEqual([]);
  });

  it("of qemu-io's commands", async () => {
    const commands = ioCommands(await helpOf("qemu-io", "-c", "help"));
    expect(commands.length).toBeGreaterThan(24);
    const missing = commands.flatMap(([command, letters]) =>
      letters.length === 0
        ? isUsed(command, /(?:)/)
          ? []
          : [command]
        : letters
            .filter((letter) => !isUsed(command, new RegExp(`(?<![\\w-])-\\w*${letter}\\w*`)))
            .map((letter) => `${command} -${letter}`),
    );
    expect(missing).toEqual([]);
  });

  // Help and version tell of the program itself: there they differ.
  it("of qemu-io itself", async () => {
    const options = [...(await helpOf("qemu-io", "--help")).matchAll(/^ {2}-([^\WhV]), /gm)].map(
      ([, letter = ""]) => letter,
    );
    expect(options.length).toBeGreaterThan(11);
    expect(options.filter((letter) => !isUsed("qemu-io", new RegExp(`(?<![\\w-])-\\w*${letter}\\w*`)))).toEqual([]);
  });
});
