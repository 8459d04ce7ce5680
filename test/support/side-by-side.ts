import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { standInHere } from "./stand-in-here.js";
import { runTool, type ToolResult } from "./stock-tools.js";

/** Rates and times differ from run to run; everything else must be equal to the letter. */
export function withoutTimes(text: string): string {
  return text
    .replaceAll(/\([0-9.]+ (?:bytes|[KMGTPE]iB)\/sec and [0-9.]+ ops\/sec\)/g, "(RATE)")
    .replaceAll(/ops; (?:[0-9.]+ sec|[0-9:.]+) /g, "ops; TIME ")
    .replaceAll(/,\d:\d\d:\d\d\.\d\d,[\d.]+,[\d.]+$/gm, ",TIMES");
}

/** Shell-like words: quotes keep spaces together. */
export function wordsOf(line: string): string[] {
  return [...line.matchAll(/'([^']*)'|(\S+)/g)].map((match) => match[1] ?? match[2] ?? "");
}

const shown = ({ stdout, stderr, code }: ToolResult): ToolResult => ({ stdout: withoutTimes(stdout), stderr, code });

/** Two folders with the same files: the stock tools work in one, we in the other. */
export class SideBySide {
  readonly ours: string;
  readonly theirs: string;

  constructor(root: string) {
    this.ours = join(root, "ours");
    this.theirs = join(root, "theirs");
    mkdirSync(this.ours);
    mkdirSync(this.theirs);
  }

  /** Runs a shell command line in both folders, with the stock tools. */
  async prepare(script: string): Promise<void> {
    for (const folder of [this.ours, this.theirs]) {
      const made = await runTool("env", ["-C", folder, "sh", "-ec", script]);
      if (made.code !== 0) throw new Error(`${script}: ${made.stderr}`);
    }
  }

  /** Runs one command line of a stock tool in both folders: theirs there, ours here, within this process. */
  async bothRun(line: string): Promise<{ readonly stock: ToolResult; readonly own: ToolResult }> {
    const [tool = "", ...args] = wordsOf(line);
    if (tool !== "qemu-img" && tool !== "qemu-io") throw new Error(`'${tool}' is no tool to compare with`);
    // By its name: the messages of some options begin with the name that the program was called by.
    const stock = await runTool("env", ["-C", this.theirs, tool, ...args]);
    process.chdir(this.ours);
    return { stock: shown(stock), own: shown(await standInHere(tool, args)) };
  }

  async expectSame(line: string): Promise<void> {
    const { stock, own } = await this.bothRun(line);
    expect(own).toEqual(stock);
  }
}
