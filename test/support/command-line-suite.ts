import { cpSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { Random } from "./random.js";
import { COMMAND_LINE_IMAGES, randomCommandLine } from "./random-command-lines.js";
import { SideBySide } from "./side-by-side.js";
import { runTool, type ToolResult } from "./stock-tools.js";
import { withoutRunTimesAndDates } from "./tool-lines.js";

/** Runs random command lines with the stock tool and with ours, each on fresh copies of the same images. */
export class CommandLineSuite {
  readonly #both: SideBySide;
  readonly #fresh: string;

  private constructor(both: SideBySide, fresh: string) {
    this.#both = both;
    this.#fresh = fresh;
  }

  static async prepare(root: string): Promise<CommandLineSuite> {
    const both = new SideBySide(root);
    await both.prepare(COMMAND_LINE_IMAGES);
    const fresh = join(root, "fresh");
    cpSync(both.theirs, fresh, { recursive: true });
    return new CommandLineSuite(both, fresh);
  }

  /** Throws with the line whose text, exit status or images differ. */
  async run(seed: number, lines: number): Promise<void> {
    const random = new Random(seed);
    const folders = [this.#both.ours, this.#both.theirs];
    for (let index = 0; index < lines; index++) {
      const { line, changes } = randomCommandLine(random);
      for (const folder of folders) {
        for (const name of readdirSync(folder)) rmSync(join(folder, name));
        cpSync(this.#fresh, folder, { recursive: true });
      }
      const { stock, own } = await this.#both.bothRun(line);
      expect(comparable(own), `seed ${seed}: ${line}`).toEqual(comparable(stock));
      if (changes && stock.code === 0) await this.#expectSameImages(`seed ${seed}: ${line}`);
    }
  }

  async #expectSameImages(where: string): Promise<void> {
    const { ours, theirs } = this.#both;
    const names = readdirSync(theirs);
    expect(readdirSync(ours), where).toEqual(names);
    for (const name of names) {
      const [own, stock] = await Promise.all([ours, theirs].map((folder) => shownBy(folder, name)));
      expect(own, `${where}: ${name}`).toEqual(stock);
    }
  }
}

/** What the stock tool tells of an image and its data. */
async function shownBy(folder: string, name: string): Promise<string[]> {
  const info = await runTool("env", ["-C", folder, "qemu-img", "info", "-U", name]);
  const sum = await runTool("env", [
    "-C",
    folder,
    "sh",
    "-c",
    `qemu-img dd -U if='${name}' of=/dev/stdout bs=64k count=64 2>&1 | sha256sum`,
  ]);
  return [info.stdout.replaceAll(/^disk size: .*$|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/gm, ""), sum.stdout];
}

/** What may not differ. */
function comparable(result: ToolResult): ToolResult {
  // The stock tool ends some hints without a new line.
  return { ...withoutRunTimesAndDates(result), stderr: result.stderr.trimEnd() };
}
