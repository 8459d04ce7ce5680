import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { ourQemuImg } from "./stand-in-here.js";
import { runTool, type ToolResult, temporaryDirectory } from "./stock-tools.js";
import { wordsOf } from "./tool-lines.js";

/**
 * Two folders with the same images, made twice and not copied: in one the stock qemu-img works, in the other ours, with the same
 * arguments.
 */
export class BothFolders {
  readonly ours: string;
  readonly theirs: string;

  constructor() {
    const root = temporaryDirectory();
    this.ours = join(root, "ours");
    this.theirs = join(root, "theirs");
    for (const folder of [this.ours, this.theirs]) mkdirSync(folder);
  }

  /** Runs command lines in both folders; each must succeed. */
  async make(...lines: string[]): Promise<void> {
    await Promise.all([this.ours, this.theirs].map((folder) => makeIn(folder, lines)));
  }

  /** `qemu-img LINE` by both programs. */
  async run(line: string): Promise<{ readonly own: ToolResult; readonly stock: ToolResult }> {
    const stock = await runTool("env", ["-C", this.theirs, "qemu-img", ...wordsOf(line)]);
    return { own: await this.runOurs(line), stock };
  }

  async runOurs(line: string): Promise<ToolResult> {
    process.chdir(this.ours);
    return ourQemuImg(wordsOf(line));
  }

  /** The same output to the letter, and the same exit status; steps of progress aside. */
  async expectSame(line: string): Promise<ToolResult> {
    const { own, stock } = await this.run(line);
    expect(withoutSteps(own)).toEqual(withoutSteps(stock));
    return stock;
  }

  /** The image `name` of both folders holds the same for the guest, and ours is sound. */
  async expectSameImage(name: string, format: string): Promise<void> {
    const [own, stock] = [join(this.ours, name), join(this.theirs, name)];
    const compared = await runTool("qemu-img", ["compare", "-f", format, "-F", format, own, stock]);
    expect(compared).toEqual({ code: 0, stdout: "Images are identical.\n", stderr: "" });
    if (format !== "qcow2") return;
    const checked = await runTool("qemu-img", ["check", "-f", format, own]);
    expect(checked.stdout + checked.stderr).toContain("No errors were found on the image.");
    expect(checked.code).toBe(0);
  }
}

async function makeIn(folder: string, lines: readonly string[]): Promise<void> {
  for (const line of lines) {
    const made = await runTool("env", ["-C", folder, ...wordsOf(line)]);
    if (made.code !== 0) throw new Error(`${line}: ${made.stderr}`);
  }
}

/** How many steps of progress there are is a matter of taste. */
function withoutSteps(result: ToolResult): ToolResult {
  return { ...result, stdout: result.stdout.replaceAll(/(?: {4}\([0-9.]+\/100%\)\r)+/g, "STEPS") };
}
