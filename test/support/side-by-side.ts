import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { standInHere } from "./stand-in-here.js";
import { runTool, type ToolResult } from "./stock-tools.js";
import { withoutTimes, wordsOf } from "./tool-lines.js";

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
    return { stock: withoutTimes(stock), own: withoutTimes(await standInHere(tool, args)) };
  }

  async expectSame(line: string): Promise<void> {
    const { stock, own } = await this.bothRun(line);
    expect(own).toEqual(stock);
  }
}
