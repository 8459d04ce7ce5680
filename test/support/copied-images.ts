import { copyFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { ourQemuImg } from "./stand-in-here.js";
import { qemuImg, runTool, type ToolResult, temporaryDirectory } from "./stock-tools.js";
import { wordsOf } from "./tool-lines.js";

/** The name of an image at the end of a word. */
const IMAGE_NAME = /[\w-]+\.(?:qcow2|raw)$/;

/** Images in a folder, on copies of which the stock qemu-img and ours run the same command lines. */
export class CopiedImages {
  readonly #root = temporaryDirectory();

  path(name: string): string {
    return join(this.#root, name);
  }

  /** Runs command lines, which must succeed; images that they name are those of the folder, and refer to each other by their whole paths. */
  async make(...lines: string[]): Promise<void> {
    for (const line of lines) {
      const [tool = "", ...words] = wordsOf(line);
      const made = await runTool(
        tool,
        words.map((word) => word.replace(IMAGE_NAME, (name) => this.path(name))),
      );
      expect(made.code, `${line}: ${made.stderr}`).toBe(0);
    }
  }

  /**
   * `qemu-img LINE` by both programs, each with copies of its own of the images that the line names: the same output to the letter, and the
   * same exit status. The paths of the first copy of each; undefined when the line names none.
   */
  async expectSame(line: string): Promise<{ readonly own: string; readonly theirs: string } | undefined> {
    const stock = await this.#runOnCopies(qemuImg, line, "theirs");
    const ours = await this.#runOnCopies(ourQemuImg, line, "ours");
    expect(ours.result).toEqual(stock.result);
    const [[own], [theirs]] = [ours.copies, stock.copies];
    return own === undefined || theirs === undefined ? undefined : { own, theirs };
  }

  async #runOnCopies(
    run: (args: readonly string[]) => Promise<ToolResult>,
    line: string,
    whose: string,
  ): Promise<{ readonly result: ToolResult; readonly copies: readonly string[] }> {
    const folder = this.path(whose);
    mkdirSync(folder, { recursive: true });
    const copies: string[] = [];
    const copied = (name: string): string => {
      const copy = join(folder, name);
      copyFileSync(this.path(name), copy);
      copies.push(copy);
      return copy;
    };
    const { stdout, stderr, code } = await run(wordsOf(line).map((word) => word.replace(IMAGE_NAME, copied)));
    const plain = (text: string): string => text.replaceAll(folder, "DIR");
    return { result: { stdout: plain(stdout), stderr: plain(stderr), code }, copies };
  }
}
